//! The guides: what a newcomer reads, in this order. Each is a file of Markdown beside this one.
//!
//! One source, shown wherever its reader is: on the forge, by `palimpsest guide`, in the console, and
//! here. Links lead from file to file, as the forge follows them. The guides keep to simple
//! Markdown (headings, paragraphs, lists, tables, code, links, bold), which a small renderer shows.
//! Their commands and programs run in `tests/processes/readme.rs`.

/// A guide.
#[derive(Clone, Copy, Debug)]
pub struct Guide {
    /// What it is asked for by: its file without `.md`.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// The whole of it, in Markdown.
    pub text: &'static str,
}

/// A line a guide: its page here, its name, and what it is about.
macro_rules! guides {
    ($($page:ident, $name:literal, $about:literal;)+) => {
        $(
            #[doc = include_str!(concat!($name, ".md"))]
            pub mod $page {}
        )+

        /// All guides, in the order in which they are read.
        pub const GUIDES: &[Guide] = &[$(Guide {
            name: $name,
            about: $about,
            text: include_str!(concat!($name, ".md")),
        },)+];
    };
}

guides! {
    first_hour, "first-hour", "a model imported, a fact traced, rewritten and taken back";
    ideas, "ideas", "the words, what each means, and what always holds";
    reading_maps, "reading-maps", "what a map of effects shows, and what it does not";
    editing_safely, "editing-safely", "before an edit, while it is made, and how it is taken back";
    clusters, "clusters", "coordinators, workers, certificates, Slurm, Kubernetes, buckets";
    auditing, "auditing", "who changed this model, and what of that is proved";
    when_it_fails, "when-it-fails", "each error: what it means and what to do; jobs that wait; numbers that differ";
}

impl Guide {
    /// Its title: the first line of its text.
    pub fn title(&self) -> &'static str {
        let line = self.text.lines().next().unwrap_or_default();
        line.trim_start_matches("# ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The README and the guides: where each stands from the root, and its text.
    fn texts() -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let guide = |it: &Guide| (format!("src/guide/{}.md", it.name), it.text.to_owned());
        let guides = GUIDES.iter().map(guide);
        guides.chain([("README.md".to_owned(), readme)]).collect()
    }

    /// The lines that are no code.
    fn prose(text: &str) -> String {
        let outside = text.split("\n```").step_by(2);
        outside.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_list_and_short_enough_to_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|file| Some(file.strip_suffix(".md")?.to_owned()))
            .collect();
        files.sort();
        let mut listed: Vec<&str> = GUIDES.iter().map(|it| it.name).collect();
        listed.sort_unstable();
        assert_eq!(files, listed);
        for guide in GUIDES {
            let lines = guide.text.lines().count();
            assert!(lines < 150, "{} has {lines} lines", guide.name);
            assert!(guide.text.starts_with("# "), "{}", guide.name);
        }
    }

    #[test]
    fn links_and_the_files_that_are_named_lead_somewhere() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, text) in texts() {
            let text = prose(&text);
            let folder = root.join(&file).parent().unwrap().to_owned();
            for rest in text.split("](").skip(1) {
                let target = rest.split([')', '#']).next().unwrap();
                let away = target.starts_with("https://");
                assert!(away || folder.join(target).exists(), "{file}: {target}");
            }
            // Between two backquotes stands code.
            for code in text.split('`').skip(1).step_by(2) {
                let folders = ["src/", "tests/", "deploy/", "proto/", "benches/"];
                let is_path = folders.iter().any(|it| code.starts_with(it));
                if let Some(path) = code.split(' ').next().filter(|_| is_path) {
                    assert!(root.join(path).exists(), "{file}: `{code}`");
                }
            }
        }
    }

    #[test]
    fn a_small_renderer_can_show_them() {
        for guide in GUIDES {
            let text = prose(guide.text);
            assert!(!text.contains("!["), "{} has a picture", guide.name);
            for line in text.lines() {
                let plain = !line.starts_with(['<', '>', '=', '~']) && !line.starts_with("####");
                assert!(plain, "{}: {line}", guide.name);
            }
            let marks = text.matches('`').count();
            assert!(marks.is_multiple_of(2), "{}: a code is open", guide.name);
        }
    }
}
