//! How a bucket is listed: page by page, and not for ever. A store may always say that more follows.

use object_store::{
    ListResult,
    aws::AmazonS3,
    list::{PaginatedListOptions, PaginatedListStore as _},
    path::{DELIMITER, Path},
};

use super::{Target, TargetError};

/// Pages of one list (1000 keys each at most stores) that are taken at most.
pub(super) const PAGES_MAX: usize = 256;

/// Which keys a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Those right in the folder, and the names of the folders in it.
    Flat,
    /// All below it.
    Deep,
}

impl Target {
    /// What lies in a folder of the bucket; `what` names it in errors.
    pub(super) async fn pages(
        &self,
        store: &AmazonS3,
        (folder, depth): (&Path, Depth),
        what: &str,
    ) -> Result<ListResult, TargetError> {
        let prefix = (!folder.is_root()).then(|| format!("{folder}{DELIMITER}"));
        let mut all = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
            extensions: object_store::Extensions::default(),
        };
        let mut page_token = None;
        for _ in 0..PAGES_MAX {
            let options = PaginatedListOptions {
                delimiter: (depth == Depth::Flat).then_some(DELIMITER.into()),
                page_token,
                ..PaginatedListOptions::default()
            };
            let page = store.list_paginated(prefix.as_deref(), options).await;
            let page = page.map_err(|error| self.error("list", what, error))?;
            all.common_prefixes.extend(page.result.common_prefixes);
            all.objects.extend(page.result.objects);
            page_token = page.page_token;
            if page_token.is_none() {
                return Ok(all);
            }
        }
        Err(TargetError::Endless {
            target: self.to_string(),
            what: what.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::PAGES_MAX;
    use crate::backup::target::fake::{Fake, Reply};

    const NAME: &str = "20261123T165400Z-00a1f9";

    #[tokio::test]
    async fn a_list_that_never_ends_is_given_up_with_the_reason() {
        let endless = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                       <NextContinuationToken>on</NextContinuationToken></ListBucketResult>";
        let fake = Fake::start(move |_| Reply::of(endless)).await;
        let names = fake.target.names().await.unwrap_err().to_string();
        let sizes = fake.target.sizes(NAME).await.unwrap_err().to_string();
        let limit = format!("after {PAGES_MAX} pages");
        assert!(
            names.contains("backups") && names.contains(&limit),
            "{names}"
        );
        assert!(sizes.contains(NAME) && sizes.contains(&limit), "{sizes}");
        assert!(fake.target.is_empty(NAME).await.is_err());
        assert!(fake.target.remove(NAME, "manifest.json").await.is_err());
    }
}
