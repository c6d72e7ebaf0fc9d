//! What is in `deploy/` is well formed by the judgement of those who will read it: shells, image
//! builders, Kubernetes, systemd. Needs the linters of `deploy/setup.sh` (`.deps/lint`); what is
//! missing on a machine is skipped with a message.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use palimpsest::config::SETTINGS;
use palimpsest::telemetry::metrics::{Kind, METRICS, Program};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files under `folder` with this ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    assert!(
        !found.is_empty(),
        "no file under {folder} ends with {ending}"
    );
    found.sort();
    found
}

/// A linter of `.deps/lint`; none with a message where it is not installed.
fn linter(name: &str) -> Option<Command> {
    let path = root().join(".deps/lint/bin").join(name);
    if !path.exists() {
        let why = format!("no {}: run deploy/setup.sh", path.display());
        crate::common::require::skip("lint", why);
        return None;
    }
    Some(Command::new(path))
}

fn passes(command: &mut Command) {
    let out = command.output().unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{command:?}:\n{said}{complained}");
}

fn is_installed(program: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    status.unwrap().success()
}

#[test]
fn scripts_pass_shellcheck() {
    let Some(mut shellcheck) = linter("shellcheck") else {
        return;
    };
    passes(
        shellcheck
            .arg("--severity=warning")
            .args(files("deploy", ".sh")),
    );
}

#[test]
fn images_are_built_by_the_rules() {
    let Some(mut hadolint) = linter("hadolint") else {
        return;
    };
    passes(hadolint.arg(root().join("deploy/docker/Dockerfile")));
}

#[test]
fn units_are_understood_by_systemd() {
    if !is_installed("systemd-analyze") {
        eprintln!("skipped: no systemd-analyze");
        return;
    }
    // It wants to find the program, which is installed nowhere yet.
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_palimpsest");
    for unit in files("deploy/systemd", ".service") {
        let text = fs::read_to_string(&unit).unwrap();
        let installed = "/usr/local/bin/palimpsest";
        assert!(text.contains(installed), "{}", unit.display());
        let copy = folder.path().join(unit.file_name().unwrap());
        fs::write(&copy, text.replace(installed, program)).unwrap();
        passes(Command::new("systemd-analyze").arg("verify").arg(copy));
    }
}

/// Making a release takes two release builds, so the gate makes none: what deploy/release.sh has
/// left in target/dist is installed, each piece in a place of its own, and run.
#[test]
fn a_release_is_installed_and_run() {
    let made = root().join("target/dist/SHA256SUMS");
    if !made.exists() {
        eprintln!("skipped: no {}: run deploy/release.sh", made.display());
        return;
    }
    passes(
        Command::new(root().join("deploy/release.sh"))
            .arg("--try-only")
            .stdin(Stdio::null()),
    );
}

/// Checked against the schemas of the oldest and the newest Kubernetes that are tried.
fn check_manifests(folder: &Path, name: &str, manifests: &str) {
    let file = folder.join(name);
    fs::write(&file, manifests).unwrap();
    for version in ["1.31", "1.36"] {
        let Some(mut validate) = linter("kubernetes-validate") else {
            return;
        };
        passes(
            validate
                .args(["--strict", "--no-warn", "-k", version])
                .arg(&file),
        );
    }
}

#[test]
fn manifests_follow_the_schemas_of_kubernetes() {
    let folder = tempfile::tempdir().unwrap();
    let base = root().join("deploy/kubernetes/base");
    let kustomization = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
    for file in files("deploy/kubernetes/base", ".yaml") {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name == "kustomization.yaml" {
            continue;
        }
        assert!(
            kustomization.contains(&format!("- {name}\n")),
            "{name} is not a resource of the base"
        );
        check_manifests(folder.path(), name, &fs::read_to_string(&file).unwrap());
    }
    let scaler = root().join("deploy/kubernetes/autoscaling/scaler.yaml");
    let scaler = fs::read_to_string(scaler).unwrap();
    check_manifests(folder.path(), "scaler.yaml", &scaler);
    if !is_installed("kubectl") {
        eprintln!("skipped: no kubectl, so overlays were not put together");
        return;
    }
    for overlay in ["base", "gpu", "autoscaling"] {
        let built = kustomize(&root().join("deploy/kubernetes").join(overlay));
        assert_eq!(built.contains("nvidia.com/gpu: \"1\""), overlay == "gpu");
        check_manifests(folder.path(), &format!("built-{overlay}.yaml"), &built);
    }
}

fn kustomize(folder: &Path) -> String {
    let mut kubectl = Command::new("kubectl");
    let out = kubectl.arg("kustomize").arg(folder).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {error}", folder.display());
    String::from_utf8(out.stdout).unwrap()
}

/// An overlay as somebody would write it, with the patch that the component's comment has.
#[test]
fn a_bucket_can_be_added_to_any_overlay() {
    if !is_installed("kubectl") {
        eprintln!("skipped: no kubectl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let up = "../".repeat(folder.path().components().count() - 1);
    let here = format!("{up}{}/deploy/kubernetes", &root().to_str().unwrap()[1..]);
    let component = root().join("deploy/kubernetes/bucket/kustomization.yaml");
    let component = fs::read_to_string(component).unwrap();
    let lines = component.lines().map(|line| line.trim_start_matches('#'));
    let example: String = lines
        .skip_while(|line| !line.starts_with("   resources:"))
        .take_while(|line| !line.is_empty())
        .map(|line| format!("{}\n", &line[3..]))
        .collect();
    for overlay in ["base", "gpu", "autoscaling"] {
        let example = example.replace("../base", &format!("{here}/{overlay}"));
        let example = example.replace("../bucket", &format!("{here}/bucket"));
        let file = folder.path().join("kustomization.yaml");
        fs::write(file, example).unwrap();
        let built = kustomize(folder.path());
        for part in [
            "value: s3://NAME/PREFIX",
            "value: /bucket/credentials",
            "secretName: palimpsest-bucket",
            "port: 443",
        ] {
            assert_eq!(built.matches(part).count(), 1, "{part} in {built}");
        }
        check_manifests(folder.path(), "built.yaml", &built);
        // With the log there too, two coordinators need no volume.
        let text = fs::read_to_string(folder.path().join("kustomization.yaml")).unwrap();
        let bucket = format!("{here}/bucket");
        let both = text.replace(&bucket, &format!("{bucket}, {here}/standby"));
        let both = both.replace("kind: StatefulSet", "kind: Deployment");
        fs::write(folder.path().join("kustomization.yaml"), both).unwrap();
        let built = kustomize(folder.path());
        assert!(!built.contains("StatefulSet") && !built.contains("volumeClaimTemplates"));
        for part in [
            "- --standby",
            "name: PALIMPSEST__STORE__LOG",
            "value: s3://NAME/PREFIX",
        ] {
            assert_eq!(built.matches(part).count(), 1, "{part} in {built}");
        }
        check_manifests(folder.path(), "built.yaml", &built);
    }
}

#[test]
fn pods_run_without_privileges() {
    for file in files("deploy/kubernetes/base", ".yaml") {
        let text = fs::read_to_string(&file).unwrap();
        let containers = text.matches("image: palimpsest-").count();
        for (promise, times) in [
            ("runAsNonRoot: true", containers),
            ("type: RuntimeDefault", containers),
            ("readOnlyRootFilesystem: true", containers),
            ("allowPrivilegeEscalation: false", containers),
            ("drop: [ALL]", containers),
            ("automountServiceAccountToken: false", containers),
        ] {
            let found = text.matches(promise).count();
            assert_eq!(found, times, "{promise} in {}", file.display());
        }
    }
}

/// A name that nobody shows would scale nothing, and say nothing.
#[test]
fn workers_are_scaled_by_a_metric_that_the_coordinator_shows() {
    let scaler = root().join("deploy/kubernetes/autoscaling/scaler.yaml");
    let scaler = fs::read_to_string(scaler).unwrap();
    let name = scaler
        .lines()
        .find_map(|line| line.trim().strip_prefix("name: palimpsest_"))
        .unwrap();
    let shown = METRICS
        .iter()
        .find(|metric| metric.name == format!("palimpsest_{name}"));
    let shown = shown.unwrap();
    assert_eq!(
        (shown.kind, shown.program),
        (Kind::Gauge, Program::Coordinator)
    );
    let target = "kind: Deployment\n    name: palimpsest-workers\n";
    assert!(scaler.contains(target));
    let workers = root().join("deploy/kubernetes/base/workers.yaml");
    assert!(
        fs::read_to_string(workers)
            .unwrap()
            .contains("kind: Deployment\nmetadata:\n  name: palimpsest-workers\n")
    );
}

/// A variable that is misspelt would be an error only where it is used.
#[test]
fn settings_that_are_named_exist() {
    let settings: BTreeSet<String> = SETTINGS
        .iter()
        .map(|setting| {
            let name = setting.key.replace('.', "__").to_uppercase();
            format!("PALIMPSEST__{name}")
        })
        .collect();
    let mut named = 0;
    for file in files("deploy", "") {
        let Ok(text) = fs::read_to_string(&file) else {
            continue; // not text
        };
        let fits = |c: char| c.is_ascii_uppercase() || c == '_';
        for (at, _) in text.match_indices("PALIMPSEST__") {
            let rest = &text[at..];
            let name = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
            // "PALIMPSEST__WORKER__..." stands for all of them.
            if !name.ends_with("__") {
                named += 1;
                assert!(settings.contains(name), "{name} in {}", file.display());
            }
        }
    }
    assert!(named > 10, "{named} settings are named in deploy/");
}
