//! Scales, round tick values and how numbers are written on them.

/// The colour scale of a heat map: the floor is drawn palest, the ceiling darkest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Values here and below are drawn palest.
    pub floor: f32,
    /// Values here and above are drawn darkest. Never below `floor`.
    pub ceiling: f32,
}

impl Scale {
    /// From `floor` to `ceiling`, by default the highest finite value.
    pub fn new(values: &[f32], floor: f32, ceiling: Option<f32>) -> Self {
        let highest = values.iter().copied().filter(|v| v.is_finite());
        let ceiling = ceiling.unwrap_or_else(|| highest.fold(floor, f32::max));
        Scale {
            floor,
            ceiling: ceiling.max(floor),
        }
    }

    /// The same to both sides of `middle`, as far as the value furthest from it, where one of
    /// `values` lies visibly below: one end of it is as dark as the other for values as far away.
    pub fn around(values: &[f32], middle: f32, ceiling: Option<f32>) -> Option<Self> {
        let above = Self::new(values, middle, ceiling).ceiling - middle;
        let finite = values.iter().copied().filter(|v| v.is_finite());
        let below = middle - finite.fold(middle, f32::min);
        let most = above.max(below);
        // Less is paler than the first step of a ramp.
        (below > most / 32.0).then_some(Scale {
            floor: middle - most,
            ceiling: middle + most,
        })
    }

    /// No two values can be told apart.
    pub fn is_flat(self) -> bool {
        self.ceiling <= self.floor
    }

    /// Where `value` lies in 0..=1; nothing for a value that is not finite, which has no place on
    /// a scale and must be drawn as what it is.
    pub fn position(self, value: f32) -> Option<f32> {
        if !value.is_finite() {
            None
        } else if self.is_flat() {
            Some(0.0)
        } else {
            // In f64: the span of two finite f32 can overflow f32.
            let (floor, ceiling) = (f64::from(self.floor), f64::from(self.ceiling));
            let at = (f64::from(value) - floor) / (ceiling - floor);
            Some(at.clamp(0.0, 1.0) as f32)
        }
    }
}

/// Round values inside `low..=high`, parted into about `count` intervals, with their labels. The
/// step is 1, 2 or 5 times a power of ten. A span of nothing gives that one value.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<(f64, String)> {
    let span = high - low;
    if span.is_nan() || span <= 0.0 || !span.is_finite() {
        return vec![(low, number(low))];
    }
    let rough = span / count.max(1) as f64;
    let mut exponent = rough.log10().floor() as i32;
    // The nearest of 1, 2, 5 and 10 on a logarithmic scale.
    let unit = match rough / 10f64.powi(exponent) {
        m if m < 2f64.sqrt() => 1,
        m if m < 10f64.sqrt() => 2,
        m if m < 50f64.sqrt() => 5,
        _ => {
            exponent += 1;
            1
        }
    };
    let step = f64::from(unit) * 10f64.powi(exponent);
    // Half a thousandth of a step of slack, so that a bound which is itself round gets its tick.
    let first = (low / step - 5e-4).ceil() as i64;
    let last = (high / step + 5e-4).floor() as i64;
    (first..=last)
        .map(|k| {
            let value = k as f64 * step;
            let label = match k {
                0 if exponent < -4 => "0".to_owned(),
                _ if exponent < -4 => trim_exponent(&format!("{value:.3e}")),
                _ => format!("{:.*}", (-exponent).max(0) as usize, value),
            };
            (value, label)
        })
        .collect()
}

/// Layers to label so that labels stand at least `spacing` cells apart: 0 and every 1, 2, 5, 10 ...
/// thereafter.
pub fn layer_ticks(layers: usize, spacing: usize) -> impl Iterator<Item = usize> {
    let mut step = 1;
    for factor in [2, 5, 10].into_iter().cycle().enumerate() {
        if step >= spacing.max(1) {
            break;
        }
        let (turn, factor) = factor;
        step = factor * 10usize.pow((turn / 3) as u32);
    }
    (0..layers).step_by(step)
}

/// A value in a sentence or a tooltip: three significant places, in scientific notation where a
/// plain fraction would be all zeros.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        if value.is_nan() {
            "NaN".into()
        } else {
            format!("{value}")
        }
    } else if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        trim_exponent(&format!("{value:.2e}"))
    } else if size < 0.1 {
        format!("{value:.4}")
    } else if size < 100.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.0}")
    }
}

/// "2.000e-7" as "2e-7".
fn trim_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
            format!("{mantissa}e{exponent}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, count: usize) -> Vec<String> {
        ticks(low, high, count).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            labels(0.0, 1.0, 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(0.0262, 0.9764, 5), ["0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(
            labels(-0.02, 0.087, 5),
            ["-0.02", "0.00", "0.02", "0.04", "0.06", "0.08"]
        );
        assert_eq!(labels(0.0, 4.0, 4), ["0", "1", "2", "3", "4"]);
        assert_eq!(labels(0.0, 6e-7, 3), ["0", "2e-7", "4e-7", "6e-7"]);
        assert_eq!(labels(0.25, 0.25, 5), ["0.250"]);
    }

    #[test]
    fn ticks_of_odd_spans_do_not_run_away() {
        for (a, b) in [(f64::NAN, 1.0), (0.0, f64::INFINITY), (2.0, 1.0)] {
            assert_eq!(ticks(a, b, 5).len(), 1);
        }
        assert!(ticks(1.0, 1.0 + f64::EPSILON, 5).len() < 20);
    }

    #[test]
    fn layers_are_labelled_from_zero_in_round_steps() {
        assert_eq!(layer_ticks(6, 1).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(layer_ticks(12, 4).collect::<Vec<_>>(), [0, 5, 10]);
        assert_eq!(
            layer_ticks(80, 6).collect::<Vec<_>>(),
            [0, 10, 20, 30, 40, 50, 60, 70]
        );
        assert_eq!(layer_ticks(90, 11).collect::<Vec<_>>(), [0, 20, 40, 60, 80]);
        assert_eq!(layer_ticks(500, 101).collect::<Vec<_>>(), [0, 200, 400]);
    }

    #[test]
    fn a_value_without_a_place_on_the_scale_has_no_position() {
        let scale = Scale::new(&[0.1, f32::NAN, 0.9, f32::INFINITY], 0.1, None);
        assert_eq!(
            scale,
            Scale {
                floor: 0.1,
                ceiling: 0.9
            }
        );
        assert_eq!(scale.position(0.05), Some(0.0));
        assert_eq!(scale.position(0.9), Some(1.0));
        assert_eq!(scale.position(f32::NAN), None);
        assert_eq!(scale.position(f32::INFINITY), None);
        let flat = Scale::new(&[0.3, 0.3], 0.3, None);
        assert!(flat.is_flat());
        assert_eq!(flat.position(0.3), Some(0.0));
        assert_eq!(Scale::new(&[f32::NAN], 0.2, None).position(5.0), Some(0.0));
        let wide = Scale::new(&[f32::MAX], f32::MIN, None);
        assert_eq!(wide.position(0.0), Some(0.5));
    }

    #[test]
    fn numbers_keep_three_places_that_mean_something() {
        let written = [
            0.0,
            0.97638,
            0.026176,
            1.234e-5,
            12.3456,
            -0.5,
            1234.5,
            f64::NAN,
        ]
        .map(number);
        assert_eq!(
            written,
            [
                "0", "0.976", "0.0262", "1.23e-5", "12.346", "-0.500", "1234", "NaN"
            ]
        );
    }
}
