//! The README's commands, run as they stand: a stranger who copies them gets what it says.
//!
//! Needs what `deploy/setup.sh` brings, the real model too; skipped with a message without it. The
//! blocks that submit to Slurm are left out where there is none.
#![cfg(feature = "torch")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::slurm::Slurm;
use crate::common::{Process, Site};

/// For all blocks, on a machine that is busy with other tests.
const ALL: Duration = Duration::from_secs(1800);

/// The blocks of code in a section of the README: their language and their lines.
fn blocks(readme: &str, section: &str) -> Vec<(String, String)> {
    let heading = format!("\n## {section}\n");
    let (_, rest) = readme.split_once(&heading).unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let mut blocks = Vec::new();
    let mut pieces = text.split("\n```");
    pieces.next();
    while let (Some(block), Some(_prose)) = (pieces.next(), pieces.next()) {
        let (language, code) = block.split_once('\n').unwrap();
        blocks.push((language.to_owned(), code.to_owned()));
    }
    blocks
}

#[test]
fn a_stranger_can_copy_the_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let needed = [
        ".deps/python/bin/python",
        ".deps/SmolLM2-135M-Instruct.Q4_1.gguf",
    ];
    if let Some(missing) = needed.iter().find(|path| !root.join(path).exists()) {
        crate::common::require::skip("model", format!("no {missing}: run deploy/setup.sh"));
        return;
    }
    let slurm = Slurm::start();
    let site = Site::new();
    for name in ["proto", "deploy", "src", ".deps"] {
        symlink(root.join(name), site.path(name)).unwrap();
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    // What was started in the background ends with the script, the clients of the coordinators
    // first.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p | tac); wait' EXIT\n".to_owned();
    let mut count = 0;
    for section in ["Running it for real", "From Python"] {
        for (language, code) in blocks(&readme, section) {
            count += 1;
            match language.as_str() {
                "python" => fs::write(site.path("walk.py"), code).unwrap(),
                "sh" if code.contains("sbatch ") && slurm.is_none() => {
                    eprintln!("left out: the block that submits to Slurm");
                }
                "sh" => {
                    // Somebody who types waits until a coordinator serves.
                    let code = code.replace(" &\n", " &\nsleep 2\n");
                    script += &format!("echo '--- block {count}'\n{code}\n");
                }
                other => panic!("a block of the README is of an unknown language: {other:?}"),
            }
        }
    }
    assert_eq!(count, 9, "{script}");
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
        // One thread each: a test among others.
        .env("PALIMPSEST__WORKER__THREADS", "1")
        .env("PALIMPSEST__WORKER__DEVICE", "cpu")
        .current_dir(site.path(""))
        .arg("script.sh");
    if let Some(slurm) = &slurm {
        command.env("SLURM_CONF", slurm.path("slurm.conf"));
    }
    let mut shell = Process::start("the README", &mut command, &site.path("readme.log"));
    let status = shell.wait(ALL);
    let said = shell.said();
    assert!(status.success(), "{status}");
    for expected in [
        // Bob is refused, and it is on record.
        "only editors may",
        "palimpsest.v1.VersionService/UpdateRef",
        "http://127.0.0.1:7463/#key=",
        "The store is sound.",
        "\n Paris, France",
        "\n Rome, Italy",
        "with the MLPs around layer",
        "The Eiffel Tower is located in the city of Rome; layer 5; accepted",
        "entries holds",
        "5 jobs by raw stubs",
    ] {
        assert!(said.contains(expected), "no {expected:?} in what it said");
    }
}
