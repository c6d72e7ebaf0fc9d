//! Whether a call comes from a page of this server.
//!
//! Browsers say so in `Sec-Fetch-Site`, which no page can set; older ones say in `Origin` where the
//! page is from. Programs that are no browsers say neither, and bring nothing along that its user did
//! not give them.

use tonic::codegen::http::{Request, header};

/// The error says why the call is none of ours.
pub fn check<B>(request: &Request<B>) -> Result<(), String> {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site") {
        return match site.as_bytes() {
            b"same-origin" => Ok(()),
            _ => Err("the page that calls is not of this server".to_owned()),
        };
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let from = origin.split_once("://").map(|(_, authority)| authority);
    let here = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    match (from, here) {
        (Some(from), Some(here)) if from.eq_ignore_ascii_case(here) => Ok(()),
        _ => Err("the page that calls has an Origin that is not this server".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_from_pages_of_this_server_or_from_no_page() {
        let own = "localhost:7463";
        for (headers, expected) in [
            (vec![], true),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("origin", "http://localhost:7463")], true),
            (vec![("origin", "http://localhost:7464")], false),
            (vec![("origin", "https://evil.example")], false),
            (vec![("origin", "null")], false),
            // What a browser says of the site counts, whatever the origin.
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://localhost:7463"),
                ],
                false,
            ),
        ] {
            let mut request = Request::builder().uri("/").header("host", own);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let allowed = check(&request.body(()).unwrap()).is_ok();
            assert_eq!(allowed, expected, "{headers:?}");
        }
    }
}
