//! MXFP4 (Open Compute Project 2023, *Microscaling Formats*), as gpt-oss packs the maps of its
//! experts: blocks of 32 numbers of four bits and of a power of two that they share.

use std::sync::LazyLock;

use half::bf16;

/// Numbers of a block.
const BLOCK: usize = 32;
/// What four bits say: a sign, two bits of exponent, one of mantissa.
const NUMBERS: [f64; 16] = [
    0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
];

/// The bytes of every number as bfloat16, by its scale and its bits. bfloat16 has both whole.
static BYTES: LazyLock<Vec<[[u8; 2]; 16]>> = LazyLock::new(|| {
    let of = |scale: i32| {
        let power = f64::from(scale - 127).exp2();
        NUMBERS.map(|number| bf16::from_f64(number * power).to_le_bytes())
    };
    (0..256).map(of).collect()
});

/// The sizes `[experts, in, out]` of what has blocks of `[experts, out, in / 32, 16]` bytes and
/// scales of `[experts, out, in / 32]`; [`None`] for other sizes.
pub fn shape(blocks: &[usize], scales: &[usize]) -> Option<Vec<usize>> {
    match *blocks {
        [experts, outputs, count, 16] if blocks[..3] == *scales => {
            Some(vec![experts, count.checked_mul(BLOCK)?, outputs])
        }
        _ => None,
    }
}

/// The numbers as bfloat16, `[experts, in, out]`, of blocks and scales that have that
/// [`fn@shape`].
pub fn expand(blocks: &[u8], scales: &[u8], shape: &[usize]) -> Vec<u8> {
    let [experts, inputs, outputs] = *shape else {
        return Vec::new();
    };
    let count = inputs / BLOCK;
    let mut all = vec![0; 2 * experts * inputs * outputs];
    for expert in 0..experts {
        for block in 0..count {
            // Outputs within, so that what is written goes on where it was.
            for output in 0..outputs {
                let at = (expert * outputs + output) * count + block;
                let numbers = &BYTES[usize::from(scales[at])];
                for (pair, byte) in blocks[at * 16..][..16].iter().enumerate() {
                    for (half, bits) in [byte & 15, byte >> 4].into_iter().enumerate() {
                        let input = block * BLOCK + 2 * pair + half;
                        let to = 2 * ((expert * inputs + input) * outputs + output);
                        all[to..to + 2].copy_from_slice(&numbers[usize::from(bits)]);
                    }
                }
            }
        }
    }
    all
}
