//! Parsers of foreign bytes give a value or an error, never a panic and never memory that the bytes
//! do not account for: over the inputs that once were trouble (`tests/fuzz/corpus/`), real files,
//! and real files with seeded damage. `tests/fuzz/run.sh` looks further.

#![allow(clippy::unwrap_used)]

#[path = "common/dice.rs"]
#[allow(dead_code)] // Other tests roll more kinds.
mod dice;
#[path = "fuzz/parsers.rs"]
mod parsers;
#[path = "fuzz/seeds.rs"]
mod seeds;

use std::fs;
use std::panic;
use std::path::Path;

use dice::Dice;

/// Damaged files a seed. `FUZZ_ROUNDS` asks for more.
const ROUNDS: u64 = 60;

#[test]
fn no_bytes_make_a_parser_panic() {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for (name, parse) in parsers::TARGETS {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(name);
        for file in fs::read_dir(&kept).into_iter().flatten() {
            let path = file.unwrap().path();
            check(
                &path.display().to_string(),
                parse,
                &fs::read(&path).unwrap(),
            );
        }
        let seeds = seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (n, seed) in seeds.iter().enumerate() {
            check(&format!("seed {n} of {name}"), parse, seed);
            // A store is opened for each input: a tenth is enough of those.
            let rounds = if *name == "log" { rounds / 10 } else { rounds };
            for round in 0..rounds {
                let damaged = damage(seed, &mut Dice::new(round, name));
                check(
                    &format!("round {round} of seed {n} of {name}"),
                    parse,
                    &damaged,
                );
            }
        }
    }
}

#[test]
#[ignore = "writes the seeds to the folder FUZZ_SEEDS, for tests/fuzz/run.sh"]
fn seeds_are_written() {
    let folder = std::env::var_os("FUZZ_SEEDS").expect("FUZZ_SEEDS names a folder");
    for (name, _) in parsers::TARGETS {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds::of(name).iter().enumerate() {
            fs::write(folder.join(n.to_string()), seed).unwrap();
        }
    }
}

/// Runs a parser, and says over what it panicked.
fn check(what: &str, parse: &fn(&[u8]), bytes: &[u8]) {
    if panic::catch_unwind(|| parse(bytes)).is_err() {
        let file = std::env::temp_dir().join("palimpsest-fuzz-input");
        fs::write(&file, bytes).unwrap();
        panic!("a parser panicked over {what}, kept as {}", file.display());
    }
}

/// A few bytes of a file changed, most of them near its start, where headers are; or a piece of it
/// cut out, doubled or moved.
fn damage(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..dice.among(1..=4) {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len() as u64;
        let within = if dice.once_in(2) {
            length
        } else {
            length.min(600)
        };
        let at = dice.below(within) as usize;
        let end = at + dice.below((length - at as u64).min(40) + 1) as usize;
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = *dice.pick(b"\0\x01\x7f\x80\xff{}[]\",:-9e"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() as u64 + 1) as usize;
                bytes.splice(to..to, piece);
            }
            // The numbers that sizes overflow with.
            _ => {
                let number = *dice.pick(&[u64::MAX, 1 << 63, u64::from(u32::MAX), 1 << 40, 0]);
                let count = (bytes.len() - at).min(8);
                bytes[at..at + count].copy_from_slice(&number.to_le_bytes()[..count]);
            }
        }
    }
    bytes
}
