//! Some layers, as flags name them.

/// Most layers that a flag names; no model has as many.
const MOST: usize = 1000;

/// Some layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers(pub Vec<u32>);

/// Reads layers: numbers, `4-8` with both ends, or `3..8` without the last.
///
/// # Errors
/// What should be written instead.
pub fn parse(text: &str) -> Result<Layers, String> {
    let number = |text: &str| {
        let parsed = text.trim().parse::<u32>();
        parsed.map_err(|_| format!("'{text}' is no layer: give 5, 3,5, 4-8 or 3..8"))
    };
    let mut layers = Vec::new();
    for part in text.split(',') {
        let (from, to) = match (part.split_once(".."), part.split_once('-')) {
            (Some((from, to)), _) => (number(from)?, number(to)?),
            (None, Some((from, to))) => (number(from)?, number(to)?.saturating_add(1)),
            (None, None) => {
                let one = number(part)?;
                (one, one.saturating_add(1))
            }
        };
        layers.extend((from..to).take(MOST + 1));
    }
    if layers.is_empty() || layers.len() > MOST {
        return Err(format!(
            "'{text}' names no layers, or too many: give 1 to {MOST}"
        ));
    }
    Ok(Layers(layers))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbers_and_ranges() {
        assert_eq!(parse("5").unwrap().0, [5]);
        assert_eq!(parse("3..6,9").unwrap().0, [3, 4, 5, 9]);
        assert_eq!(parse("4-8").unwrap().0, [4, 5, 6, 7, 8]);
        for wrong in ["", "a", "6..3", "6-3", "1..2000", "0-4294967295"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
