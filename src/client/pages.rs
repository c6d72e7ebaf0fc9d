//! Lists, read page by page to their end.

use tonic::Status;

use super::Client;
use crate::proto::v1;

/// Items of a page where the server's own number is too few: the most that it gives.
const LARGE: u32 = 1000;

/// Hands the items of a list to `take`, page by page, until it wants no more or there are none.
/// `page` asks for the page of a token, the first one being empty, and gives its items and the next
/// one's token.
///
/// # Errors
/// What `page` gives, and a server that repeats a page.
pub async fn each<T, F>(
    mut page: impl FnMut(String) -> F,
    mut take: impl FnMut(T) -> bool,
) -> Result<(), Status>
where
    F: Future<Output = Result<(Vec<T>, String), Status>>,
{
    let mut token = String::new();
    loop {
        let (items, next) = page(token.clone()).await?;
        for item in items {
            if !take(item) {
                return Ok(());
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        if next == token {
            return Err(Status::internal(
                "the server repeats a page of its list: it broke the contract",
            ));
        }
        token = next;
    }
}

/// All items of a list, in its order; `page` as for [`each`].
///
/// # Errors
/// As [`each`].
pub async fn all<T, F>(page: impl FnMut(String) -> F) -> Result<Vec<T>, Status>
where
    F: Future<Output = Result<(Vec<T>, String), Status>>,
{
    let mut items = Vec::new();
    each(page, |item| {
        items.push(item);
        true
    })
    .await?;
    Ok(items)
}

impl Client {
    /// All jobs, the newest first.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_jobs(&self) -> Result<Vec<v1::Job>, Status> {
        self.jobs_like(&v1::ListJobsRequest::default()).await
    }

    /// All jobs that pass the filters of a request, the newest first.
    ///
    /// # Errors
    /// The server's.
    pub async fn jobs_like(&self, filters: &v1::ListJobsRequest) -> Result<Vec<v1::Job>, Status> {
        all(|page_token| async {
            let request = v1::ListJobsRequest {
                page_token,
                ..filters.clone()
            };
            let page = self.jobs().list_jobs(request).await?.into_inner();
            Ok((page.jobs, page.next_page_token))
        })
        .await
    }

    /// All models.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_models(&self) -> Result<Vec<v1::Model>, Status> {
        all(|page_token| async {
            let request = v1::ListModelsRequest {
                page_size: 0,
                page_token,
            };
            let page = self.models().list_models(request).await?.into_inner();
            Ok((page.models, page.next_page_token))
        })
        .await
    }

    /// All workers, by name.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_workers(&self) -> Result<Vec<v1::Worker>, Status> {
        all(|page_token| async {
            let request = v1::ListWorkersRequest {
                page_size: LARGE,
                page_token,
            };
            let page = self.workers().list_workers(request).await?.into_inner();
            Ok((page.workers, page.next_page_token))
        })
        .await
    }

    /// The edits of a version, `models/{model}/versions/{version}`, in its order, without their
    /// contexts.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_edits(&self, version: &str) -> Result<Vec<v1::Edit>, Status> {
        let mut edits = Vec::new();
        self.each_edit(version, |edit| {
            edits.push(edit);
            true
        })
        .await?;
        Ok(edits)
    }

    /// Hands the edits of a model, `models/{model}`, the newest first, or of a version, in its
    /// order, to `take`, without their contexts, until it wants no more.
    ///
    /// # Errors
    /// The server's.
    pub async fn each_edit(
        &self,
        parent: &str,
        take: impl FnMut(v1::Edit) -> bool,
    ) -> Result<(), Status> {
        let page = |page_token| async {
            let request = v1::ListEditsRequest {
                parent: parent.to_owned(),
                page_size: LARGE,
                page_token,
            };
            let page = self.versions().list_edits(request).await?.into_inner();
            Ok((page.edits, page.next_page_token))
        };
        each(page, take).await
    }

    /// The key statistics of a model, `models/{model}`, by layer, the newest first.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_statistics(&self, model: &str) -> Result<Vec<v1::Statistics>, Status> {
        all(|page_token| async {
            let request = v1::ListStatisticsRequest {
                parent: model.to_owned(),
                page_size: 0,
                page_token,
            };
            let page = self
                .statistics()
                .list_statistics(request)
                .await?
                .into_inner();
            Ok((page.statistics, page.next_page_token))
        })
        .await
    }

    /// The refs of a model, `models/{model}`.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_refs(&self, model: &str) -> Result<Vec<v1::Ref>, Status> {
        all(|page_token| async {
            let request = v1::ListRefsRequest {
                parent: model.to_owned(),
                page_size: 0,
                page_token,
            };
            let page = self.versions().list_refs(request).await?.into_inner();
            Ok((page.refs, page.next_page_token))
        })
        .await
    }

    /// Hands the versions of a model, `models/{model}`, to `take`, the newest first, until it wants
    /// no more.
    ///
    /// # Errors
    /// The server's.
    pub async fn each_version(
        &self,
        model: &str,
        take: impl FnMut(v1::Version) -> bool,
    ) -> Result<(), Status> {
        let page = |page_token| async {
            let request = v1::ListVersionsRequest {
                parent: model.to_owned(),
                page_size: 0,
                page_token,
            };
            let page = self.versions().list_versions(request).await?.into_inner();
            Ok((page.versions, page.next_page_token))
        };
        each(page, take).await
    }

    /// Hands the audit entries that `wanted` selects to `take`, the oldest first, until it wants no
    /// more.
    ///
    /// # Errors
    /// The server's.
    pub async fn each_audit_entry(
        &self,
        wanted: &v1::ListAuditEntriesRequest,
        take: impl FnMut(v1::AuditLeaf) -> bool,
    ) -> Result<(), Status> {
        let page = |page_token| async {
            let request = v1::ListAuditEntriesRequest {
                page_size: LARGE,
                page_token,
                ..wanted.clone()
            };
            let page = self.audit().list_audit_entries(request).await?.into_inner();
            Ok((page.leaves, page.next_page_token))
        };
        each(page, take).await
    }

    /// A page of the results of a job, `jobs/{job}`, in the order of its units: for [`all`].
    ///
    /// # Errors
    /// The server's.
    pub async fn page_of_results(
        &self,
        job: &str,
        page_token: String,
    ) -> Result<(Vec<v1::UnitResult>, String), Status> {
        let view = v1::ResultView::Full;
        self.page_of_results_as(job, view, page_token).await
    }

    /// [`Client::page_of_results`], and what of each result it has.
    ///
    /// # Errors
    /// The server's.
    pub async fn page_of_results_as(
        &self,
        job: &str,
        view: v1::ResultView,
        page_token: String,
    ) -> Result<(Vec<v1::UnitResult>, String), Status> {
        let request = v1::ListResultsRequest {
            parent: job.to_owned(),
            page_size: LARGE,
            page_token,
            view: view as i32,
            ..Default::default()
        };
        let page = self.jobs().list_results(request).await?.into_inner();
        Ok((page.results, page.next_page_token))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Pages of two of the numbers under 5; token N is the page that begins at N.
    async fn page(token: String) -> Result<(Vec<usize>, String), Status> {
        let from = token.parse().unwrap_or(0);
        let to = (from + 2).min(5);
        let next = if to < 5 {
            to.to_string()
        } else {
            String::new()
        };
        Ok(((from..to).collect(), next))
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_or_until_it_is_enough() {
        assert_eq!(all(page).await.unwrap(), [0, 1, 2, 3, 4]);
        let mut taken = Vec::new();
        let take = |n| {
            taken.push(n);
            n < 2
        };
        each(page, take).await.unwrap();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_server_that_repeats_a_page_is_not_asked_for_ever() {
        let again = |_| async { Ok((vec![1], "more".to_owned())) };
        let refused = all(again).await.unwrap_err();
        assert!(refused.message().contains("repeats"), "{refused}");
    }
}
