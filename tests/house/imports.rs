//! Which file uses which, from the `use` lines and the paths of the sources.
//!
//! A name that a `mod.rs` passes on is followed to the file that has it, so a `pub use` is no arrow
//! of its own. Tests are left out: they may look at anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Arrows between files, by their paths under `src`, with a path that each is seen by.
pub type Arrows = BTreeMap<(String, String), String>;

/// A `use`: the name that it gives, and the path behind it.
type Names = BTreeMap<String, Vec<String>>;

#[derive(Default)]
struct Source {
    file: String,
    tokens: Vec<String>,
    names: Names,
    globs: Vec<Vec<String>>,
    children: BTreeSet<String>,
}

/// The modules of the crate, by their paths: `["store", "log"]`.
pub struct Crate(BTreeMap<Vec<String>, Source>);

impl Crate {
    /// Reads the sources under a folder.
    pub fn read(src: &Path) -> Self {
        let mut texts = Vec::new();
        collect(src, src, &mut texts);
        Self::of(
            texts
                .iter()
                .map(|(file, text)| (file.as_str(), text.as_str())),
        )
    }

    /// Takes files by their paths under `src`.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let mut path: Vec<String> = file
                .trim_end_matches(".rs")
                .split('/')
                .map(str::to_owned)
                .collect();
            if matches!(path.last().map(String::as_str), Some("mod" | "lib")) {
                path.pop();
            }
            if path.iter().any(|part| part == "tests") {
                continue;
            }
            let tokens = without_tests(tokens(text));
            let mut source = Source {
                file: file.to_owned(),
                ..Source::default()
            };
            source.tokens = take_uses(tokens, &mut source.names, &mut source.globs);
            modules.insert(path, source);
        }
        let paths: Vec<Vec<String>> = modules.keys().cloned().collect();
        for path in paths {
            if let Some((last, parent)) = path.split_last()
                && let Some(parent) = modules.get_mut(parent)
            {
                parent.children.insert(last.clone());
            }
        }
        Self(modules)
    }

    /// The paths of the files, under `src`.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(|source| source.file.as_str())
    }

    /// Whether a file has these tokens in a row, outside its tests.
    pub fn has(&self, file: &str, row: &[&str]) -> bool {
        let source = self.0.values().find(|source| source.file == file);
        source.is_some_and(|source| source.tokens.windows(row.len()).any(|it| it == row))
    }

    /// Crates and modules of the standard library that a file names: `tch`, `std::fs`.
    pub fn foreign(&self, file: &str) -> BTreeSet<String> {
        let source = self.0.values().find(|source| source.file == file);
        let mut found = BTreeSet::new();
        for path in source.iter().flat_map(|source| source.paths()) {
            found.insert(path[0].clone());
            found.insert(path[..path.len().min(2)].join("::"));
        }
        found
    }

    /// Every arrow from a file to another.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (module, source) in &self.0 {
            for path in source.paths() {
                if let Some(file) = self.resolve(module, &path, 0)
                    && file != source.file
                {
                    let seen = arrows.entry((source.file.clone(), file.to_owned()));
                    seen.or_insert_with(|| path.join("::"));
                }
            }
        }
        arrows
    }

    /// The file that has what a path names, as the module sees it; none for other crates.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<&str> {
        if depth > 12 {
            return None;
        }
        let mut at = module.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                let source = self.0.get(module)?;
                let known = source.children.contains(first) || source.names.contains_key(first);
                if !known {
                    return None;
                }
            }
        }
        loop {
            let source = self.0.get(&at)?;
            let Some((first, after)) = rest.split_first() else {
                return Some(&source.file);
            };
            if source.children.contains(first) {
                at.push(first.clone());
                rest = after;
                continue;
            }
            if let Some(named) = source.names.get(first) {
                if named.len() == 1 && named[0] == *first {
                    return None;
                }
                let whole = [named.as_slice(), after].concat();
                return self.resolve(&at, &whole, depth + 1);
            }
            if !source.defines(first) {
                let found = source.globs.iter().find_map(|glob| {
                    let whole = [glob.as_slice(), rest].concat();
                    let file = self.resolve(&at, &whole, depth + 1)?;
                    let source = self.0.values().find(|source| source.file == file)?;
                    source.defines(first).then_some(file)
                });
                if found.is_some() {
                    return found;
                }
            }
            return Some(&source.file);
        }
    }
}

impl Source {
    /// The paths that the file names: in its own `use` lines, and in its code. What a `mod.rs`
    /// passes on without a use of its own is not among them.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut paths: Vec<Vec<String>> = Vec::new();
        let mut n = 0;
        while n < self.tokens.len() {
            let mut path = vec![self.tokens[n].clone()];
            let begins = n == 0 || !matches!(self.tokens[n - 1].as_str(), "::" | "." | "mod");
            n += 1;
            if !begins || !is_name(&path[0]) {
                continue;
            }
            while self.tokens.get(n).is_some_and(|it| it == "::")
                && self.tokens.get(n + 1).is_some_and(|it| is_name(it))
            {
                path.push(self.tokens[n + 1].clone());
                n += 2;
            }
            let imported = self.names.contains_key(&path[0]);
            if path.len() > 1 || imported {
                paths.push(match self.names.get(&path[0]) {
                    Some(named) => [named.as_slice(), &path[1..]].concat(),
                    None => path,
                });
            }
        }
        let is_map = self.file.ends_with("mod.rs") || self.file == "lib.rs";
        let globs = self.globs.iter().filter(|_| !is_map);
        paths.extend(globs.cloned());
        paths
    }

    fn defines(&self, name: &str) -> bool {
        let words = [
            "struct", "enum", "fn", "trait", "type", "const", "static", "mod", "union",
        ];
        let mut pairs = self.tokens.windows(2);
        pairs.any(|pair| words.contains(&pair[0].as_str()) && pair[1] == name)
    }
}

fn collect(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let file = path.strip_prefix(root).unwrap().to_str().unwrap();
            texts.push((file.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The tokens of a text, without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut n) = (Vec::new(), 0);
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    while n < chars.len() {
        let c = chars[n];
        if c == '/' && at(n + 1) == '/' {
            while n < chars.len() && chars[n] != '\n' {
                n += 1;
            }
        } else if c == '/' && at(n + 1) == '*' {
            n += 2;
            while n < chars.len() && !(chars[n] == '*' && at(n + 1) == '/') {
                n += 1;
            }
            n += 2;
        } else if matches!(c, 'r' | 'b') && raw_string(&chars, n).is_some() {
            n = raw_string(&chars, n).unwrap_or(n + 1);
        } else if c == '"' {
            n += 1;
            while n < chars.len() && chars[n] != '"' {
                n += if chars[n] == '\\' { 2 } else { 1 };
            }
            n += 1;
        } else if c == '\'' {
            // A character, or a lifetime.
            if at(n + 1) == '\\' {
                n += 3;
                while n < chars.len() && chars[n] != '\'' {
                    n += 1;
                }
                n += 1;
            } else if at(n + 2) == '\'' {
                n += 3;
            } else {
                n += 1;
            }
        } else if c.is_alphanumeric() || c == '_' {
            let begin = n;
            while n < chars.len() && (chars[n].is_alphanumeric() || chars[n] == '_') {
                n += 1;
            }
            tokens.push(chars[begin..n].iter().collect());
        } else if c == ':' && at(n + 1) == ':' {
            tokens.push("::".to_owned());
            n += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            n += 1;
        }
    }
    tokens
}

/// Where a raw string that begins here ends.
fn raw_string(chars: &[char], begin: usize) -> Option<usize> {
    if begin > 0 && (chars[begin - 1].is_alphanumeric() || chars[begin - 1] == '_') {
        return None;
    }
    let mut n = begin;
    if chars[n] == 'b' {
        n += 1;
    }
    if chars.get(n) != Some(&'r') {
        return None;
    }
    n += 1;
    let hashes = chars[n..].iter().take_while(|&&c| c == '#').count();
    n += hashes;
    if chars.get(n) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    let rest = &chars[n + 1..];
    let found = rest.windows(end.len()).position(|it| it == end)?;
    Some(n + 1 + found + end.len())
}

/// The tokens without what stands under `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut n) = (Vec::new(), 0);
    while n < tokens.len() {
        if tokens[n..].len() >= mark.len() && tokens[n..n + mark.len()] == mark {
            n += mark.len();
            let mut depth = 0;
            while n < tokens.len() {
                match tokens[n].as_str() {
                    "{" | "(" | "[" => depth += 1,
                    "}" | ")" | "]" => depth -= 1,
                    _ => {}
                }
                n += 1;
                let ended = matches!(tokens[n - 1].as_str(), "}" | ";");
                if depth == 0 && ended {
                    break;
                }
            }
        } else {
            kept.push(tokens[n].clone());
            n += 1;
        }
    }
    kept
}

/// Takes the `use` items out of the tokens.
fn take_uses(tokens: Vec<String>, names: &mut Names, globs: &mut Vec<Vec<String>>) -> Vec<String> {
    let (mut kept, mut n): (Vec<String>, _) = (Vec::new(), 0);
    while n < tokens.len() {
        let begins =
            n == 0 || matches!(tokens[n - 1].as_str(), ";" | "}" | "{" | "]" | ")" | "pub");
        if tokens[n] == "use" && begins {
            let end = n + tokens[n..].iter().position(|it| it == ";").unwrap_or(0);
            tree(&tokens[n + 1..end], &[], names, globs);
            n = end + 1;
        } else {
            kept.push(tokens[n].clone());
            n += 1;
        }
    }
    kept
}

fn tree(tokens: &[String], before: &[String], names: &mut Names, globs: &mut Vec<Vec<String>>) {
    let mut path = before.to_vec();
    let mut n = 0;
    while n < tokens.len() {
        match tokens[n].as_str() {
            "::" => n += 1,
            "*" => {
                globs.push(path);
                return;
            }
            "{" => {
                let (mut depth, mut begin) = (0, n + 1);
                for (k, token) in tokens.iter().enumerate().skip(n) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    let ends = depth == 0 || (depth == 1 && token == ",");
                    if ends {
                        if begin < k {
                            tree(&tokens[begin..k], &path, names, globs);
                        }
                        begin = k + 1;
                    }
                }
                return;
            }
            "as" => {
                if let Some(name) = tokens.get(n + 1) {
                    names.insert(name.clone(), path);
                }
                return;
            }
            "self" if !path.is_empty() => n += 1,
            name => {
                path.push(name.to_owned());
                n += 1;
            }
        }
    }
    if let Some(last) = path.last() {
        names.insert(last.clone(), path.clone());
    }
}
