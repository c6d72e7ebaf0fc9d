//! What a file or folder that somebody names as a model must be before it is read: what lies there
//! instead is said with what helps, and nothing outside the folder is taken for a part of it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Weights in one file, and the list of several.
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// Looks at a model before it is opened.
///
/// # Errors
/// What is there instead of a model, and what helps.
pub fn check(path: &Path) -> anyhow::Result<()> {
    if !path.is_dir() {
        return match path.is_file() {
            true => check_file(path),
            // What opens it says that it is not there.
            false => Ok(()),
        };
    }
    let at = path.display();
    let names = names(path)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if has("adapter_config.json") && !has("config.json") {
        let base = adapter_base(path);
        bail!(
            "{at}: a PEFT adapter{base}, not a model: import its base, or the two merged (merge_and_unload, save_pretrained)"
        );
    }
    let ending = |ending: &str| names.iter().find(|name| name.ends_with(ending));
    if !WEIGHTS.iter().any(|name| has(name)) {
        if let Some(name) = ending(".gguf") {
            bail!("{at}: holds {name}: name the file, 'palimpsest model import {at}/{name}'");
        }
        if let Some(name) = names.iter().find(|name| name.contains("-of-0")) {
            bail!(
                "{at}: holds parts of a model ({name}) but no model.safetensors.index.json: fetch it too"
            );
        }
        if let Some(name) = ending(".safetensors") {
            bail!(
                "{at}: has no model.safetensors; it holds {name}, which may be a variant of it: if these are the model's \
                 weights, give it that name in a folder of its own"
            );
        }
    }
    for name in names
        .iter()
        .filter(|name| name.ends_with(".safetensors") || name.ends_with(".json"))
    {
        check_file(&path.join(name))?;
    }
    if has("config.json") && !has("tokenizer.json") && WEIGHTS.iter().any(|name| has(name)) {
        bail!(
            "{at}: has no tokenizer.json: write it with Python, transformers.AutoTokenizer\
             .from_pretrained({:?}).save_pretrained({:?})",
            at.to_string(),
            at.to_string()
        );
    }
    Ok(())
}

/// Sees to it that no file of a folder is a link to something outside it: a folder from elsewhere
/// could make others' secrets an object that everybody reads. The snapshots of Hugging Face's own
/// cache link to its blobs.
///
/// # Errors
/// The file, and where it leads.
pub fn check_links(folder: &Path, files: &[PathBuf]) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let real = |path: &Path| {
        let real = std::fs::canonicalize(path);
        real.with_context(|| format!("cannot read {}", path.display()))
    };
    let inside = real(folder)?;
    let snapshots = inside.parent().filter(|it| it.ends_with("snapshots"));
    let blobs = snapshots.and_then(|it| Some(it.parent()?.join("blobs")));
    for file in files {
        let leads = real(file)?;
        let to_blob = blobs.as_ref().is_some_and(|blobs| leads.starts_with(blobs));
        if !leads.starts_with(&inside) && !to_blob {
            bail!(
                "{} leads to {}, outside the model's folder: copy the file there if it belongs to the model, or remove it",
                file.display(),
                leads.display()
            );
        }
    }
    Ok(())
}

/// A file that is something else than its name says.
fn check_file(path: &Path) -> anyhow::Result<()> {
    let at = path.display();
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.with_context(|| format!("cannot read {at}"))?;
    let text = String::from_utf8_lossy(&start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("version https://git-lfs") {
        bail!("{at}: a git-lfs pointer, not the file itself: run 'git lfs pull' in its repository");
    }
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("<!doctype") || lower.starts_with("<html") {
        bail!("{at}: an HTML page: the download failed, fetch the file again");
    }
    let is_json = path.extension().is_some_and(|it| it == "json");
    if is_json && !text.starts_with(['{', '[']) {
        bail!("{at}: is not JSON, which its name says: fetch the file again, or remove it");
    }
    Ok(())
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let unreadable = || format!("cannot read {}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if entry.path().is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// " of X", where an adapter says so.
fn adapter_base(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let base = config["base_model_name_or_path"].as_str();
    base.map_or(String::new(), |base| format!(" of {base}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            std::fs::write(folder.path().join(name), contents).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_no_model_is_said_with_what_helps() {
        let config = ("config.json", "{}");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        for (files, said) in [
            (
                &[config, ("model.safetensors", pointer)][..],
                "git lfs pull",
            ),
            (
                &[config, ("model.safetensors", "<!DOCTYPE html><html>")],
                "an HTML page",
            ),
            (
                &[config, ("model.safetensors", "x"), ("vocab.json", "{}")],
                "no tokenizer.json",
            ),
            (
                &[config, ("model.fp16.safetensors", "x")],
                "holds model.fp16.safetensors",
            ),
            (&[("model.gguf", "GGUF")], "name the file"),
            (
                &[("adapter_config.json", r#"{"base_model_name_or_path": "x"}"#)],
                "a PEFT adapter of x, not a model",
            ),
            (
                &[config, ("tokenizer_config.json", "PRIVATE KEY")],
                "tokenizer_config.json: is not JSON",
            ),
        ] {
            let folder = folder(files);
            let message = check(folder.path()).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn a_link_out_of_the_folder_is_refused_but_for_the_hubs_own_cache() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = cache.path().join("snapshots").join("1");
        let blobs = cache.path().join("blobs");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("b"), "{}").unwrap();
        std::fs::write(cache.path().join("id_rsa"), "key").unwrap();
        let link = |to: &str, name: &str| {
            let file = snapshot.join(name);
            std::os::unix::fs::symlink(to, &file).unwrap();
            file
        };
        let good = link("../../blobs/b", "config.json");
        let bad = link("../../id_rsa", "tokenizer_config.json");
        assert!(check_links(&snapshot, &[good]).is_ok());
        let said = check_links(&snapshot, &[bad]).unwrap_err().to_string();
        assert!(
            said.contains("id_rsa") && said.contains("outside"),
            "{said}"
        );
    }
}
