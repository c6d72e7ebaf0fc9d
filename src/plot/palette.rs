//! Colours: the ramps of the three kinds and the line colours of curves.

use super::Kind;

/// A colour in sRGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl std::fmt::Display for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

impl Rgb {
    const fn hex(v: u32) -> Self {
        Rgb((v >> 16) as u8, (v >> 8) as u8, v as u8)
    }

    /// The nearest of the 240 fixed entries (16..=255) of a 256-colour terminal. The first 16 are
    /// left out because their colours are the user's to choose.
    pub fn ansi256(self) -> u8 {
        const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        let nearest = |v: u8| {
            (0..6)
                .min_by_key(|&i| v.abs_diff(STEPS[i]))
                .unwrap_or_default()
        };
        let (r, g, b) = (nearest(self.0), nearest(self.1), nearest(self.2));
        let cube = Rgb(STEPS[r], STEPS[g], STEPS[b]);
        let mean = (u32::from(self.0) + u32::from(self.1) + u32::from(self.2)) / 3;
        let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
        let level = 8 + 10 * grey;
        if self.distance(Rgb(level, level, level)) < self.distance(cube) {
            232 + grey
        } else {
            (16 + 36 * r + 6 * g + b) as u8
        }
    }

    fn distance(self, other: Rgb) -> u32 {
        let d = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        d(self.0, other.0) + d(self.1, other.1) + d(self.2, other.2)
    }
}

/// ColorBrewer's sequential nine-class schemes (Cynthia Brewer, Pennsylvania State University),
/// which the paper's figures use under the names Purples, Greens and Reds.
const PURPLES: [Rgb; 9] = ramp([
    0xfcfbfd, 0xefedf5, 0xdadaeb, 0xbcbddc, 0x9e9ac8, 0x807dba, 0x6a51a3, 0x54278f, 0x3f007d,
]);
const GREENS: [Rgb; 9] = ramp([
    0xf7fcf5, 0xe5f5e0, 0xc7e9c0, 0xa1d99b, 0x74c476, 0x41ab5d, 0x238b45, 0x006d2c, 0x00441b,
]);
const REDS: [Rgb; 9] = ramp([
    0xfff5f0, 0xfee0d2, 0xfcbba1, 0xfc9272, 0xfb6a4a, 0xef3b2c, 0xcb181d, 0xa50f15, 0x67000d,
]);
/// Those of the same schemes that stand opposite: ColorBrewer's diverging schemes pair purple with
/// orange, green with purple and red with blue, as pairs that common colour-vision deficiencies
/// tell apart.
const ORANGES: [Rgb; 9] = ramp([
    0xfff5eb, 0xfee6ce, 0xfdd0a2, 0xfdae6b, 0xfd8d3c, 0xf16913, 0xd94801, 0xa63603, 0x7f2704,
]);
const BLUES: [Rgb; 9] = ramp([
    0xf7fbff, 0xdeebf7, 0xc6dbef, 0x9ecae1, 0x6baed6, 0x4292c6, 0x2171b5, 0x08519c, 0x08306b,
]);

const fn ramp(hex: [u32; 9]) -> [Rgb; 9] {
    let mut out = [Rgb(0, 0, 0); 9];
    let mut i = 0;
    while i < 9 {
        out[i] = Rgb::hex(hex[i]);
        i += 1;
    }
    out
}

/// The nine anchors of a kind's ramp, palest first; before them, where it has two sides, those of
/// the opposite one, darkest first, without its palest.
pub fn anchors(kind: Kind, two_sided: bool) -> Vec<Rgb> {
    let (ramp, opposite) = match kind {
        Kind::Hidden => (PURPLES, ORANGES),
        Kind::Mlp => (GREENS, PURPLES),
        Kind::Attn => (REDS, BLUES),
    };
    let below = opposite[1..].iter().rev().filter(|_| two_sided);
    below.chain(&ramp).copied().collect()
}

/// The colour at `position` in 0..=1 of a scale, linear between its anchors.
pub fn shade(anchors: &[Rgb], position: f32) -> Rgb {
    let steps = anchors.len() - 1;
    let at = position.clamp(0.0, 1.0) * steps as f32;
    let low = (at as usize).min(steps - 1);
    let part = at - low as f32;
    let mix = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * part).round() as u8;
    let (a, b) = (anchors[low], anchors[low + 1]);
    Rgb(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

/// The line colour that stands for a kind.
pub fn line(kind: Kind) -> Rgb {
    anchors(kind, false)[6]
}

/// Line colours that stay apart under the common colour-vision deficiencies (Okabe and Ito, 2008),
/// without its yellow, which is too pale for a line on white.
pub const LINES: [Rgb; 7] = [
    Rgb::hex(0x0072b2),
    Rgb::hex(0xd55e00),
    Rgb::hex(0x009e73),
    Rgb::hex(0xcc79a7),
    Rgb::hex(0xe69f00),
    Rgb::hex(0x56b4e9),
    Rgb::hex(0x000000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_meets_its_anchors_and_never_turns_back() {
        for kind in [Kind::Hidden, Kind::Mlp, Kind::Attn] {
            let anchors = anchors(kind, false);
            assert_eq!(shade(&anchors, 0.0), anchors[0]);
            assert_eq!(shade(&anchors, 0.5), anchors[4]);
            assert_eq!(shade(&anchors, 1.0), anchors[8]);
            assert_eq!(shade(&anchors, 7.0), anchors[8]);
            let luma =
                |c: Rgb| 0.299 * f32::from(c.0) + 0.587 * f32::from(c.1) + 0.114 * f32::from(c.2);
            for i in 0..100 {
                let (a, b) = (i as f32 / 100.0, (i + 1) as f32 / 100.0);
                assert!(luma(shade(&anchors, a)) + 1.0 > luma(shade(&anchors, b)));
            }
            // Two sides are as dark as each other at their ends, and meet at the palest.
            let both = super::anchors(kind, true);
            assert_eq!(
                (both.len(), both[8], both[16]),
                (17, anchors[0], anchors[8])
            );
            assert!((luma(both[0]) - luma(both[16])).abs() < 40.0, "{both:?}");
            for i in 0..50 {
                let (a, b) = (i as f32 / 100.0, (i + 1) as f32 / 100.0);
                assert!(luma(shade(&both, a)) < luma(shade(&both, b)) + 1.0);
            }
        }
    }

    /// The console draws with the same colours: what is not here is nowhere else.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn the_console_has_the_same_palette() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/web/console/src/colours.ts"
        );
        let text = std::fs::read_to_string(file).unwrap();
        for (name, ramp) in [
            ("PURPLES", PURPLES),
            ("GREENS", GREENS),
            ("REDS", REDS),
            ("ORANGES", ORANGES),
            ("BLUES", BLUES),
        ] {
            let hex = ramp.map(|colour| colour.to_string().replace('#', "0x"));
            let line = format!("const {name} = [{}];", hex.join(", "));
            assert!(text.contains(&line), "{file} lacks: {line}");
        }
        for (kind, name) in [
            (Kind::Hidden, "hidden: [PURPLES, ORANGES]"),
            (Kind::Mlp, "mlp: [GREENS, PURPLES]"),
            (Kind::Attn, "attn: [REDS, BLUES]"),
        ] {
            assert!(text.contains(name), "{file} lacks: {name}");
            let named = match kind {
                Kind::Hidden => (PURPLES, ORANGES),
                Kind::Mlp => (GREENS, PURPLES),
                Kind::Attn => (REDS, BLUES),
            };
            let both = anchors(kind, true);
            assert_eq!((both[0], both[16]), (named.1[8], named.0[8]));
        }
        let lines = LINES.map(|colour| format!("\"{colour}\""));
        let line = format!("export const LINES = [{}]", lines.join(", "));
        assert!(text.contains(&line), "{file} lacks: {line}");
    }

    #[test]
    fn terminal_colours_are_the_nearest_fixed_ones() {
        assert_eq!(Rgb(0, 0, 0).ansi256(), 16);
        assert_eq!(Rgb(255, 255, 255).ansi256(), 231);
        assert_eq!(Rgb(255, 0, 0).ansi256(), 196);
        assert_eq!(Rgb(128, 128, 128).ansi256(), 244);
        // Every entry of the cube and the grey ramp is its own nearest.
        for i in 0..24u8 {
            let v = 8 + 10 * i;
            assert_eq!(Rgb(v, v, v).ansi256(), 232 + i);
        }
    }
}
