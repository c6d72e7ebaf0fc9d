//! Some layers, as flags name them.

/// Most layers that a flag names; no model has as many.
const MOST: usize = 1000;

/// Some layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers(pub Vec<u32>);

/// The layers of an edit of many facts, as a flag names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// Those around the place where the newest sweep says that facts are.
    Located,
    /// These.
    Given(Layers),
}

/// Reads the layers of an edit: `auto`, or as [`parse`] does.
///
/// # Errors
/// What should be written instead.
pub fn parse_edited(text: &str) -> Result<Edited, String> {
    match text {
        "auto" => Ok(Edited::Located),
        text => parse(text).map(Edited::Given),
    }
}

/// `count` layers of a model of `layers` that hold the one where an effect peaks, the last of them
/// the last that cannot be told from the peak: so the authors of MEMIT end the layers that they
/// edit at the last of those through which facts pass.
pub fn around(peak: u32, last_alike: u32, count: u32, layers: u32) -> Vec<u32> {
    let count = count.clamp(1, layers.max(1));
    let last = last_alike
        .max(peak)
        .min(peak.saturating_add(count - 1))
        .clamp(count - 1, layers.max(1) - 1);
    (last + 1 - count..=last).collect()
}

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
    fn the_layers_around_a_peak_hold_it_and_end_where_the_effect_does() {
        for (peak, last_alike, count, layers, expected) in [
            (17, 17, 5, 48, 13..=17),
            (15, 17, 5, 48, 13..=17),
            // Further than the peak can be told from nothing ends the range at the peak's reach.
            (5, 20, 6, 28, 5..=10),
            (1, 1, 5, 30, 0..=4),
            (29, 29, 5, 30, 25..=29),
            (1, 2, 5, 3, 0..=2),
            (7, 9, 1, 12, 7..=7),
        ] {
            let found = around(peak, last_alike, count, layers);
            assert_eq!(found, expected.collect::<Vec<_>>(), "{peak} {last_alike}");
            assert!(found.contains(&peak));
        }
        assert_eq!(parse_edited("auto"), Ok(Edited::Located));
        assert_eq!(parse_edited("4-5"), Ok(Edited::Given(Layers(vec![4, 5]))));
    }

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
