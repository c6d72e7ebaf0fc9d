//! The pages of a comparison of two versions.

use prost::Message as _;
use tonic::Status;

use super::pages;
use crate::proto::v1::{self, CompareVersionsResponse};
use crate::version::{Error, History, difference, digest_of};

/// Adds to a comparison the edits from number `from` on, of those that only the left version has
/// and then those that only the right one has.
pub fn compared(
    history: History<'_>,
    mut response: CompareVersionsResponse,
    (left, right): (&v1::Version, &v1::Version),
    from: usize,
    size: usize,
) -> Result<CompareVersionsResponse, Error> {
    let (has_left, has_right) = (history.content(left)?, history.content(right)?);
    let of_left = difference::edits_only_in(&has_left, &has_right);
    let of_right = difference::edits_only_in(&has_right, &has_left);
    let mut page = pages::Page::new(size.saturating_add(1));
    if from == 0 {
        // What the first page has beside the edits takes its room first.
        page.takes(response.encoded_len());
    }
    let all = of_left.iter().chain(&of_right);
    let mut edits = Vec::new();
    for id in all.skip(from) {
        if edits.len() >= size {
            break;
        }
        let edit = v1::Edit {
            factors: Vec::new(),
            ..history.edit_of(id)?
        };
        if !page.takes(edit.encoded_len()) {
            break;
        }
        edits.push(edit);
    }
    let at = from + edits.len();
    if at < of_left.len() + of_right.len() {
        let (left, right) = (digest_of(&left.name), digest_of(&right.name));
        response.next_page_token = pages::token("comparison", &format!("{at}/{left}/{right}"));
    }
    response.right_edits = edits.split_off(of_left.len().saturating_sub(from).min(edits.len()));
    response.left_edits = edits;
    Ok(response)
}

/// Where a comparison goes on: at which edit, of which versions.
pub fn going_on(token: &str) -> Result<Option<(usize, String, String)>, Status> {
    let Some(text) = pages::after("comparison", token)? else {
        return Ok(None);
    };
    let mut parts = text.split('/');
    let at = parts.next().and_then(|at| at.parse().ok());
    match (at, parts.next(), parts.next()) {
        (Some(at), Some(left), Some(right)) => Ok(Some((at, left.to_owned(), right.to_owned()))),
        _ => Err(super::status::invalid_page_token(token)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Change, Record, Store};
    use crate::version::{edit_id, edit_name, version_id, version_name};

    /// Edits that are stored, each with a context of so many bytes, by their digests.
    fn edits(store: &Store, count: u64, bytes: usize) -> Vec<String> {
        let make = |number| {
            let edit = v1::Edit {
                why: format!("edit {number}"),
                contexts: vec!["x".repeat(bytes)],
                ..Default::default()
            };
            let records = Record::edit("m", number, &edit).map(Change::Record);
            store.commit(&records).unwrap();
            edit_id(&edit).to_string()
        };
        (1..=count).map(make).collect()
    }

    /// A stored version that says all of its edits itself.
    fn version(store: &Store, number: u64, edits: &[String]) -> v1::Version {
        let mut version = v1::Version {
            parent: "p".to_owned(),
            edits: edits.to_vec(),
            ..Default::default()
        };
        version.name = version_name("m", &version_id(&version).to_string());
        let records = Record::version("m", number, &version).map(Change::Record);
        store.commit(&records).unwrap();
        version
    }

    #[test]
    fn a_comparison_of_versions_far_apart_comes_in_pages_of_a_messages_size() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let history = History::new(&store, "m", "base");
        let all = edits(&store, 60, 200_000);
        // Some that both have, and some of each alone.
        let left = version(&store, 1, &all[..25]);
        let right = version(&store, 2, &all[10..]);
        for size in [usize::MAX, 7] {
            let (mut lefts, mut rights, mut pages) = (Vec::new(), Vec::new(), 0);
            let mut from = 0;
            loop {
                let first = CompareVersionsResponse {
                    left: (from == 0).then(|| left.clone()),
                    ..Default::default()
                };
                let page = compared(history, first, (&left, &right), from, size).unwrap();
                assert!(page.encoded_len() < crate::api::server::MESSAGE_LIMIT);
                assert!(page.left_edits.len() + page.right_edits.len() <= size);
                pages += 1;
                lefts.extend(page.left_edits);
                rights.extend(page.right_edits);
                let Some((at, of_left, of_right)) = going_on(&page.next_page_token).unwrap() else {
                    break;
                };
                let named = [&left, &right].map(|it| digest_of(&it.name));
                assert_eq!([of_left.as_str(), of_right.as_str()], named);
                from = at;
            }
            let names = |edits: &[v1::Edit]| -> Vec<String> {
                edits.iter().map(|edit| edit.name.clone()).collect()
            };
            let expected = |digests: &[String]| -> Vec<String> {
                digests
                    .iter()
                    .map(|digest| edit_name("m", digest))
                    .collect()
            };
            assert_eq!(names(&lefts), expected(&all[..10]));
            assert_eq!(names(&rights), expected(&all[25..]));
            assert!(pages >= 3, "{pages}");
        }
        assert!(going_on("00").is_err());
    }
}
