//! How a bucket of an S3-compatible store is reached, and what its refusals mean. It asks no machine for credentials
//! unless the environment says so, and says no secret.

use std::{error::Error, time::Duration};

use object_store::{
    ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
};

use super::{Reach, sieve::Sieving};

/// How long the store may be silent before an answer or in it. How long a whole answer takes has no limit here: a part
/// is as large as it is.
const SILENCE: Duration = Duration::from_secs(30);
/// How often and how long one question to the store is repeated.
const RETRIES: usize = 3;
/// How long one question to the store is repeated at most.
const RETRY: Duration = Duration::from_secs(20);
/// Characters of an answer that no rule is known for, at most.
const ANSWER_CHARS_MAX: usize = 200;
/// The variable with the access key.
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
/// The variable with its secret.
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
/// Variables that together ask for credentials of another kind.
const OTHER_KINDS: [&[&str]; 5] = [
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
    &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
    &[
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ],
    &["AWS_METADATA_ENDPOINT"],
    &["AWS_SKIP_SIGNATURE"],
];
/// What to do without credentials.
const NEEDED: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or backup.access_key_id_file and \
                      backup.secret_access_key_file; the machine's role is asked for with AWS_METADATA_ENDPOINT";

/// A bucket, as errors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    name: String,
    endpoint: String,
    /// The access key in use; `None` when the credentials are of another kind.
    key_id: Option<String>,
}

impl Bucket {
    /// The bucket, if there are credentials for it in `reach` or the environment; else what is missing.
    pub(super) fn of(
        name: &str,
        reach: &Reach,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let key_id = reach.access_key_id.clone().or_else(|| set(KEY_ID));
        let has_secret = reach.secret_access_key.is_some() || set(SECRET).is_some();
        let is_other = OTHER_KINDS
            .iter()
            .any(|kind| kind.iter().all(|name| set(name).is_some()));
        let missing = match (&key_id, has_secret) {
            (None, false) if !is_other => Some(format!("{KEY_ID} and {SECRET} are not set")),
            (None, true) => Some(format!("{SECRET} is set and {KEY_ID} is not")),
            (Some(_), false) => Some(format!("{KEY_ID} is set and {SECRET} is not")),
            (None, false) | (Some(_), true) => None,
        };
        if let Some(missing) = missing {
            return Err(format!("{missing}: {NEEDED}"));
        }
        let amazon = || "Amazon S3".to_owned();
        let endpoint = reach.endpoint.clone();
        let endpoint = endpoint
            .or_else(|| set("AWS_ENDPOINT_URL"))
            .or_else(|| set("AWS_ENDPOINT"));
        Ok(Self {
            name: name.to_owned(),
            endpoint: endpoint.unwrap_or_else(amazon),
            key_id,
        })
    }

    /// Opens it; nothing is asked of the store yet.
    pub(super) fn open(&self, reach: &Reach) -> object_store::Result<AmazonS3> {
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY,
            ..RetryConfig::default()
        };
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(SILENCE)
            .with_connect_timeout(Duration::from_secs(5))
            .with_allow_http(true);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.name)
            .with_retry(retry)
            .with_http_connector(Sieving::default())
            .with_client_options(options);
        if let Some(region) = &reach.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &reach.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(id) = &reach.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &reach.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        builder.build()
    }

    /// Whether the bucket itself is what is missing.
    pub(super) fn is_missing(error: &object_store::Error) -> bool {
        element(&error.to_string(), "Code").as_deref() == Some("NoSuchBucket")
    }

    /// What the store said, in one sentence with what to do.
    pub(super) fn said(&self, error: &object_store::Error) -> String {
        let Self {
            name,
            endpoint,
            key_id,
        } = self;
        let text = error.to_string();
        let key = match key_id {
            Some(id) => format!("access key {id}"),
            None => "the credentials of the environment".to_owned(),
        };
        let code = element(&text, "Code").unwrap_or_default();
        // A list that is refused is a failure of no kind of its own.
        let is_refusal = code == "AccessDenied"
            || matches!(
                error,
                object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
            );
        match code.as_str() {
            "NoSuchBucket" => format!(
                "{endpoint} has no bucket {name}: make it, or mend backup.target or --target"
            ),
            "InvalidAccessKeyId" => format!(
                "{endpoint} does not know {key} (bucket {name}): mend {KEY_ID}, or what backup.access_key_id_file holds"
            ),
            "SignatureDoesNotMatch" => format!(
                "{endpoint} refuses {key} (bucket {name}): the secret is not that of the key: mend {SECRET}, or what \
                 backup.secret_access_key_file holds"
            ),
            _ if is_refusal => {
                let code = Some(code).filter(|code| !code.is_empty());
                let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                format!(
                    "{endpoint} refuses {key} in bucket {name}{code}: give the key the right to read, write, list and \
                     delete there, or use another"
                )
            }
            "" => plain(endpoint, name, error),
            _ => {
                let message = element(&text, "Message").unwrap_or_default();
                format!(
                    "{endpoint} refuses it for bucket {name}: {code}: {}",
                    cut(&message)
                )
            }
        }
    }
}

/// What is said without a code: nothing came at all, or something that no store of this kind says.
fn plain(endpoint: &str, bucket: &str, error: &object_store::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(deeper) = innermost.source() {
        innermost = deeper;
    }
    let innermost = innermost.to_string();
    match innermost.split_once("status code: ") {
        Some((_, answer)) => format!("{endpoint} answers for bucket {bucket}: {}", cut(answer)),
        None => format!(
            "no answer of {endpoint} for bucket {bucket}: {}: see whether it runs, and whether backup.endpoint or \
             --endpoint is right",
            cut(&innermost)
        ),
    }
}

/// The text of an XML element's first occurrence.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim().to_owned())
}

/// The beginning of an answer, in one line.
fn cut(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let line = line.trim_end_matches([':', '.']);
    line.chars().take(ANSWER_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::TryStreamExt as _;
    use object_store::Error;

    use super::{Bucket, Reach, SILENCE};
    use crate::backup::target::fake::{Fake, Reply};

    fn bucket(set: &[(&str, &str)]) -> Result<Bucket, String> {
        let reach = Reach {
            endpoint: Some("http://127.0.0.1:9000".into()),
            ..Reach::default()
        };
        Bucket::of("backups", &reach, |name| {
            let found = set.iter().find(|(one, _)| *one == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn xml(code: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let body = format!(
            "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code>\
             <Message>Long words.</Message></Error>"
        );
        body.into()
    }

    #[test]
    fn credentials_that_are_missing_are_named_and_no_machine_is_asked_for_them() {
        for (set, why) in [
            (
                &[][..],
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
            ),
            (&[("AWS_ACCESS_KEY_ID", "")], "are not set"),
            (
                &[("AWS_ACCESS_KEY_ID", "a")],
                "AWS_SECRET_ACCESS_KEY is not",
            ),
            (
                &[("AWS_SECRET_ACCESS_KEY", "a")],
                "AWS_ACCESS_KEY_ID is not",
            ),
            (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "a")], "are not set"),
        ] {
            let said = bucket(set).unwrap_err();
            assert!(said.contains(why) && said.contains("_file"), "{said}");
        }
        let both = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        assert_eq!(bucket(&both).unwrap().key_id.as_deref(), Some("a"));
        let machine = [("AWS_METADATA_ENDPOINT", "http://169.254.169.254")];
        assert_eq!(bucket(&machine).unwrap().key_id, None);
    }

    #[test]
    fn a_refusal_is_one_sentence_with_bucket_key_and_what_to_do() {
        let both = [
            ("AWS_ACCESS_KEY_ID", "AKID1"),
            ("AWS_SECRET_ACCESS_KEY", "b"),
        ];
        let bucket = bucket(&both).unwrap();
        let path = || "a/b".to_owned();
        let denied = |code| Error::PermissionDenied {
            path: path(),
            source: xml(code),
        };
        let missing = Error::NotFound {
            path: path(),
            source: xml("NoSuchBucket"),
        };
        let list = Error::Generic {
            store: "S3",
            source: xml("AccessDenied"),
        };
        let silent = Error::Generic {
            store: "S3",
            source: "Connection refused (os error 111)".into(),
        };
        for (error, parts) in [
            (
                denied("SignatureDoesNotMatch"),
                ["AKID1", "mend AWS_SECRET_ACCESS_KEY"],
            ),
            (
                denied("InvalidAccessKeyId"),
                ["AKID1", "mend AWS_ACCESS_KEY_ID"],
            ),
            (denied("AccessDenied"), ["AKID1", "(AccessDenied)"]),
            (list, ["AKID1", "give the key the right"]),
            (missing, ["no bucket backups", "make it"]),
            (silent, ["no answer of http://127.0.0.1:9000", "refused"]),
        ] {
            let said = bucket.said(&error);
            for part in parts.into_iter().chain(["backups"]) {
                assert!(said.contains(part), "{said}");
            }
            assert!(!said.contains('<') && !said.contains('\n'), "{said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_takes_as_long_as_it_takes_and_a_silence_ends() {
        let second = Duration::from_secs(1);
        let fake = Fake::start(move |line| {
            let is_silent = line.contains("/silent");
            let pause = if is_silent {
                SILENCE * 10
            } else {
                SILENCE - second
            };
            Reply::slow(vec![b"piece".to_vec(); 10], pause)
        })
        .await;
        let begun = tokio::time::Instant::now();
        let part = fake.target.stream("name", "slow").await.unwrap();
        let pieces: Vec<_> = part.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"piece".repeat(10));
        assert!(begun.elapsed() > SILENCE * 9);
        let part = fake.target.stream("name", "silent").await.unwrap();
        let silent = part.try_collect::<Vec<_>>();
        let ended = tokio::time::timeout(SILENCE * 9, silent).await.unwrap();
        ended.unwrap_err();
    }
}
