//! Lets odd keys not reach the reader of a bucket's list. The client gives a whole page up for one key that is no path (an
//! empty segment, `..`, a control character), so that whoever may write one would hide every backup. What is left out is
//! told in the log.

use std::pin::Pin;

use futures::StreamExt as _;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
        HttpService, ReqwestConnector,
    },
    path::Path,
};

/// Bytes of one page of a list at most: 1000 keys of 1024 bytes, each byte written in up to six.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Characters of an odd key that the log shows at most.
const SHOWN_CHARS_MAX: usize = 120;
/// What tells the question for a list from every other.
const LIST: &str = "list-type=2";
/// Elements of a list that hold a key, and where.
const ENTRIES: [(&str, &str); 2] = [("Contents", "Key"), ("CommonPrefixes", "Prefix")];

/// Makes clients that sieve lists.
#[derive(Debug, Default)]
pub(super) struct Sieving(ReqwestConnector);

impl HttpConnector for Sieving {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Sieve(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Sieve(HttpClient);

impl HttpService for Sieve {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let query = request.uri().query().unwrap_or_default();
            let is_list = query.split('&').any(|pair| pair == LIST);
            let response = self.0.execute(request).await?;
            if !is_list || !response.status().is_success() {
                return Ok(response);
            }
            let (mut head, body) = response.into_parts();
            let mut pieces = body.bytes_stream();
            let mut page = Vec::new();
            while let Some(piece) = pieces.next().await {
                page.extend_from_slice(&piece?);
                if page.len() > PAGE_BYTES_MAX {
                    let said = format!("a page of a list has more than {PAGE_BYTES_MAX} bytes");
                    return Err(HttpError::new(
                        HttpErrorKind::Decode,
                        std::io::Error::other(said),
                    ));
                }
            }
            let (sieved, odd) = sieved(&String::from_utf8_lossy(&page));
            if let Some(first) = odd.first() {
                let first: String = first.chars().take(SHOWN_CHARS_MAX).collect();
                tracing::warn!(
                    keys = odd.len(),
                    ?first,
                    "odd keys at the backup target are passed over: remove them"
                );
            }
            head.headers.remove("content-length");
            Ok(HttpResponse::from_parts(head, sieved.into()))
        })
    }
}

/// A page without the entries whose key is no path, and those keys as they are written.
fn sieved(page: &str) -> (String, Vec<String>) {
    let mut odd = Vec::new();
    let mut page = page.to_owned();
    for (entry, key) in ENTRIES {
        page = without_odd(&page, (entry, key), &mut odd);
    }
    (page, odd)
}

/// A page without odd keys in entries of one kind; what cannot be understood is left for the client to refuse.
fn without_odd(page: &str, (entry, key): (&str, &str), odd: &mut Vec<String>) -> String {
    let (open, close) = (format!("<{entry}>"), format!("</{entry}>"));
    let (begin, end) = (format!("<{key}>"), format!("</{key}>"));
    let mut kept = String::with_capacity(page.len());
    let mut rest = page;
    while let Some((before, inner)) = rest.split_once(&open)
        && let Some((inner, after)) = inner.split_once(&close)
    {
        kept.push_str(before);
        let named = inner.split_once(&begin);
        match named.and_then(|(_, named)| named.split_once(&end)) {
            Some((named, _)) if !is_path(named) => odd.push(named.to_owned()),
            Some(_) | None => kept.extend([&open, inner, &close]),
        }
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// Whether a key, as it is written in XML, is one that the client takes. The names of characters (`&amp;`) hide none that
/// it refuses, numbers may.
fn is_path(written: &str) -> bool {
    let mut plain = String::with_capacity(written.len());
    let mut rest = written;
    while let Some((before, after)) = rest.split_once("&#") {
        plain.push_str(before);
        let Some((number, after)) = after.split_once(';') else {
            return false;
        };
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => number.parse(),
        };
        let Some(character) = code.ok().and_then(char::from_u32) else {
            return false;
        };
        plain.push(character);
        rest = after;
    }
    plain.push_str(rest);
    Path::parse(&plain).is_ok()
}

#[cfg(test)]
mod tests {
    use super::sieved;
    use crate::backup::target::fake::{Fake, Reply};

    const NAME: &str = "20261123T165400Z-00a1f9";
    /// An empty segment, a way up, and control characters as stores write them.
    const ODD: [&str; 6] = ["/x", "../x", "a//b", "a\u{1b}[31m", "a&#x1B;b", "a&#27;b"];

    fn contents(key: &str, size: u64) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-23T16:54:00.000Z</LastModified>\
             <ETag>&quot;e&quot;</ETag><Size>{size}</Size></Contents>"
        )
    }

    fn prefix(key: &str) -> String {
        format!("<CommonPrefixes><Prefix>{key}/</Prefix></CommonPrefixes>")
    }

    fn page(entries: &[String]) -> String {
        let entries = entries.concat();
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult><Prefix>p/</Prefix><IsTruncated>false</IsTruncated>{entries}\
             </ListBucketResult>"
        )
    }

    #[tokio::test]
    async fn an_odd_key_hides_no_backup_and_no_part_of_one() {
        let fake = Fake::start(|line| {
            let folder = if line.contains(NAME) {
                format!("p/{NAME}/")
            } else {
                "p/".into()
            };
            let mut entries = vec![contents(&format!("{folder}state"), 3)];
            for odd in ODD {
                entries.push(contents(&format!("{folder}{odd}"), 1));
                entries.push(prefix(&format!("{folder}{odd}")));
            }
            entries.push(prefix(&format!("p/{NAME}")));
            Reply::of(page(&entries))
        })
        .await;
        assert_eq!(fake.target.names().await.unwrap(), [NAME]);
        let sizes = fake.target.sizes(NAME).await.unwrap();
        assert_eq!(
            sizes.into_iter().collect::<Vec<_>>(),
            [("state".to_owned(), 3)]
        );
        assert!(!fake.target.is_empty(NAME).await.unwrap());
    }

    #[test]
    fn what_is_no_odd_key_stays_as_it_is() {
        let whole = page(&[
            contents("p/a&amp;b&#39;c", 1),
            prefix("p/x"),
            "<Contents><Size>1</Size></Contents>".to_owned(),
        ]);
        let (same, odd) = sieved(&whole);
        assert_eq!((same.as_str(), odd.len()), (whole.as_str(), 0));
        let mixed = page(&[contents("p//x", 1), contents("p/y", 2), prefix("p//")]);
        let (less, odd) = sieved(&mixed);
        assert_eq!(less, page(&[contents("p/y", 2)]));
        assert_eq!(odd, ["p//x", "p///"]);
    }
}
