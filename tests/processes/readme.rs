//! The commands of the README and of the guides, run as they stand: a stranger who copies them gets
//! what they say.
//!
//! Needs what `deploy/setup.sh` brings, the real model too; skipped with a message without it. The
//! blocks that submit to Slurm are left out where there is none, and those that say `elsewhere`
//! behind their language everywhere.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use palimpsest::guide::GUIDES;

use crate::common::slurm::Slurm;
use crate::common::{Process, Site};

/// For all blocks, on a machine that is busy with other tests. They compute for some four minutes:
/// with an eighth of a core, for half an hour.
const ALL: Duration = Duration::from_secs(3600);

/// The guides whose commands go on with the store of the first.
const ONE_MACHINE: [&str; 5] = [
    "first-hour",
    "ideas",
    "reading-maps",
    "editing-safely",
    "auditing",
];
/// Those that have a coordinator of their own.
const A_CLUSTER: [&str; 2] = ["clusters", "when-it-fails"];

/// A block of code.
struct Block {
    /// What stands behind its backquotes.
    language: String,
    code: String,
    /// The prose before it.
    before: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut pieces = text.split("\n```");
    let mut before = pieces.next().unwrap();
    while let (Some(block), Some(after)) = (pieces.next(), pieces.next()) {
        let (language, code) = block.split_once('\n').unwrap();
        blocks.push(Block {
            language: language.to_owned(),
            code: code.to_owned(),
            before: before.to_owned(),
        });
        before = after;
    }
    blocks
}

/// A section of the README.
fn section<'a>(readme: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let (_, rest) = readme.split_once(&heading).unwrap();
    rest.split("\n## ").next().unwrap()
}

/// Whether a line is the expected one, in which `…` stands for anything.
fn matches(line: &str, expected: &str) -> bool {
    let mut rest = Some(line);
    for part in expected.split('…') {
        rest = rest.and_then(|rest| Some(rest.split_once(part)?.1));
    }
    rest.is_some()
}

/// Runs the blocks of texts in one shell, in a checkout that `deploy/setup.sh` has made ready, and
/// gives what they said; none where something is missing for that. Blocks of shell are run, blocks
/// of Python and JSON are the files whose names stand before them, and each line of a block of text
/// must be among what was said.
fn run(what: &str, texts: &[&str]) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let needed = [
        ".deps/python/bin/python",
        ".deps/SmolLM2-135M-Instruct.Q4_1.gguf",
    ];
    if let Some(missing) = needed.iter().find(|path| !root.join(path).exists()) {
        crate::common::require::skip("model", format!("no {missing}: run deploy/setup.sh"));
        return None;
    }
    let slurm = Slurm::start();
    let site = Site::new();
    for name in ["proto", "deploy", "src", ".deps"] {
        symlink(root.join(name), site.path(name)).unwrap();
    }
    // What was started in the background ends with the script, the clients of the coordinators
    // first.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p | tac); wait' EXIT\n".to_owned();
    let mut expected = Vec::new();
    for (n, block) in texts.iter().flat_map(|text| blocks(text)).enumerate() {
        let code = block.code;
        match block.language.as_str() {
            "sh elsewhere" => {}
            "sh" if code.contains("sbatch ") && slurm.is_none() => {
                eprintln!("left out: the block that submits to Slurm");
            }
            "sh" => {
                // Somebody who types waits until a coordinator serves.
                let code = format!("{code}\n").replace(" &\n", " &\nsleep 2\n");
                script += &format!("echo '--- block {n}'\n{code}");
            }
            "python" | "json" => {
                let name = block.before.trim_end().strip_suffix("`:").unwrap();
                let (_, name) = name.rsplit_once('`').unwrap();
                fs::write(site.path(name), code).unwrap();
            }
            "text" => expected.extend(code.lines().map(str::to_owned)),
            other => panic!("a block of {what} is of an unknown language: {other:?}"),
        }
    }
    fs::write(site.path("script.sh"), &script).unwrap();

    let program = site.command(&[]);
    let folder = Path::new(program.get_program()).parent().unwrap();
    let python = root.join(".deps/python/bin");
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .env(
            "PATH",
            format!("{}:{}:{path}", folder.display(), python.display()),
        )
        .env("no_proxy", "127.0.0.1")
        .env("PALIMPSEST__WORKER__DEVICE", "cpu")
        // One thread each: a test among others.
        .env("PALIMPSEST__WORKER__THREADS", "1")
        .env("PALIMPSEST__CLIENT__THREADS", "1")
        .current_dir(site.path(""))
        .arg("script.sh");
    if let Some(slurm) = &slurm {
        command.env("SLURM_CONF", slurm.path("slurm.conf"));
    }
    let mut shell = Process::start(what, &mut command, &site.path("said.log"));
    let status = shell.wait(ALL);
    let said = shell.said();
    assert!(status.success(), "{status}");
    for expected in expected {
        let found = said.lines().any(|line| matches(line, &expected));
        assert!(found, "no {expected:?} in what {what} said");
    }
    Some(said)
}

fn guides(what: &str, names: &[&str]) -> Option<String> {
    let text = |name: &&str| GUIDES.iter().find(|it| it.name == *name).unwrap().text;
    run(what, &names.iter().map(text).collect::<Vec<_>>())
}

#[test]
fn a_stranger_can_copy_the_commands() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let Some(said) = run("the README", &[section(&readme, "From Python")]) else {
        return;
    };
    for expected in ["with the MLPs around layer", "1 jobs by raw stubs"] {
        assert!(said.contains(expected), "no {expected:?} in what it said");
    }
}

#[test]
fn the_guides_of_one_machine_do_what_they_say() {
    let Some(said) = guides("the guides of one machine", &ONE_MACHINE) else {
        return;
    };
    for expected in [
        "\n Paris, France",
        "\n Rome, Italy",
        "The Eiffel Tower is located in the city of Rome; layer 5; accepted",
        "entries holds",
        "http://127.0.0.1:7469/#key=",
    ] {
        assert!(said.contains(expected), "no {expected:?} in what they said");
    }
}

#[test]
fn the_guides_of_a_cluster_do_what_they_say() {
    guides("the guides of a cluster", &A_CLUSTER);
}

#[test]
fn every_guide_is_run_by_one_of_these_tests() {
    let mut run: Vec<&str> = [&ONE_MACHINE[..], &A_CLUSTER].concat();
    let mut all: Vec<&str> = GUIDES.iter().map(|it| it.name).collect();
    run.sort_unstable();
    all.sort_unstable();
    assert_eq!(run, all);
    assert!(matches("v1 1e02 (main)  edit", "v1 … (main)"));
    assert!(!matches("(main) v1", "v1 … (main)"));
}
