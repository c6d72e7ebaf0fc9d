//! What a test does where the machine lacks something that it needs.

use std::fmt::Display;

/// Says that a test is skipped, and why.
///
/// # Panics
/// When `PALIMPSEST_REQUIRE` names this part: it has some of `slurm,lint,bucket,model,console`, which
/// `deploy/setup.sh` brings.
pub fn skip(part: &str, why: impl Display) {
    let required = std::env::var("PALIMPSEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|it| it == part),
        "PALIMPSEST_REQUIRE has {part}: {why}"
    );
    eprintln!("skipped: {why}");
}
