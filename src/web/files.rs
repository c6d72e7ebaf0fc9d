//! The files of the console: built from `console/` by `deploy/setup.sh`, and part of the program.
//!
//! `build.rs` lays them into `OUT_DIR`. Where they were not built, the page says how they are: the
//! program itself builds without Node, and all its commands are there.

/// A file, by the path that browsers ask for.
#[derive(Debug)]
pub struct File {
    path: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its bytes.
    pub content: &'static [u8],
}

macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/console/", $name))
    };
}

/// The page that all others are: the script in it reads the address.
const INDEX: File = File {
    path: "/",
    kind: "text/html; charset=utf-8",
    content: built!("index.html"),
};

const FILES: [File; 4] = [
    File {
        path: "/assets/main.js",
        kind: "text/javascript; charset=utf-8",
        content: built!("main.js"),
    },
    File {
        path: "/assets/main.css",
        kind: "text/css; charset=utf-8",
        content: built!("main.css"),
    },
    File {
        path: "/assets/icon.svg",
        kind: "image/svg+xml",
        content: built!("icon.svg"),
    },
    File {
        path: "/help.html",
        kind: "text/html; charset=utf-8",
        content: built!("help.html"),
    },
];

impl File {
    /// What tells this content from others.
    pub fn tag(&self) -> String {
        format!("\"{}\"", &blake3::hash(self.content).to_hex()[..32])
    }
}

/// The file at a path; the page for every path that is no file's, for the pages' own addresses look
/// like folders.
pub fn at(path: &str) -> Option<&'static File> {
    match FILES.iter().find(|file| file.path == path) {
        // One that was not built is not there.
        Some(file) => (!file.content.is_empty()).then_some(file),
        None => (!path.starts_with("/assets/")).then_some(&INDEX),
    }
}

/// Whether this program has the console's pages, or only the one that says how to get them.
pub fn is_built() -> bool {
    !FILES[0].content.is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_files_and_everything_else_to_the_page() {
        for page in [
            "/",
            "/jobs",
            "/models/a.b/history",
            "/../../etc/passwd",
            "//",
            "/favicon.ico",
        ] {
            assert_eq!(at(page).unwrap().path, "/", "{page}");
        }
        for none in ["/assets/", "/assets/other.js", "/assets/../main.js"] {
            assert!(at(none).is_none(), "{none}");
        }
        for file in &FILES {
            assert_eq!(at(file.path).is_some(), is_built(), "{}", file.path);
        }
        assert_eq!(INDEX.tag().len(), 34);
    }
}
