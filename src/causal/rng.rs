//! NumPy's legacy generator, `numpy.random.RandomState`, bit for bit.
//!
//! The published experiments draw their noise from it, so a run can only be repeated exactly with
//! the same stream: MT19937 seeded by `init_genrand`, 53-bit doubles, and the polar form of
//! Box-Muller that keeps its spare value. NumPy promises never to change this stream.

const STATE: usize = 624;
const SHIFT: usize = 397;

/// The generator behind `numpy.random.RandomState(seed)`.
#[derive(Clone)]
pub struct RandomState {
    words: [u32; STATE],
    next: usize,
    /// The polar method makes two normal deviates at a time; NumPy hands the second out on the next
    /// call.
    spare: Option<f64>,
}

impl RandomState {
    /// `numpy.random.RandomState(seed)` for an integer seed.
    pub fn new(seed: u32) -> Self {
        let mut words = [0u32; STATE];
        words[0] = seed;
        for i in 1..STATE {
            let previous = words[i - 1];
            words[i] = 1_812_433_253u32
                .wrapping_mul(previous ^ (previous >> 30))
                .wrapping_add(i as u32);
        }
        Self {
            words,
            next: STATE,
            spare: None,
        }
    }

    fn refill(&mut self) {
        for i in 0..STATE {
            let y = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % STATE] & 0x7fff_ffff);
            let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + SHIFT) % STATE] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }

    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.refill();
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `rand()`: uniform in `[0, 1)` with 53 random bits.
    pub fn double(&mut self) -> f64 {
        let high = f64::from(self.word() >> 5);
        let low = f64::from(self.word() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// `uniform(low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.double()
    }

    /// `randn()`: a standard normal deviate.
    pub fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        loop {
            let x1 = 2.0 * self.double() - 1.0;
            let x2 = 2.0 * self.double() - 1.0;
            let r2 = x1 * x1 + x2 * x2;
            if r2 < 1.0 && r2 != 0.0 {
                let f = (-2.0 * r2.ln() / r2).sqrt();
                self.spare = Some(f * x1);
                return f * x2;
            }
        }
    }

    /// `chisquare(degrees)`, for more than two degrees of freedom (all that Student-t noise needs).
    pub fn chisquare(&mut self, degrees: f64) -> f64 {
        debug_assert!(
            degrees > 2.0,
            "the gamma sampler below is for shapes over 1"
        );
        2.0 * self.gamma(degrees / 2.0)
    }

    /// Marsaglia and Tsang's gamma sampler for `shape > 1`, in NumPy's order of draws.
    fn gamma(&mut self, shape: f64) -> f64 {
        let b = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * b).sqrt();
        loop {
            let (x, v) = loop {
                let x = self.normal();
                let v = 1.0 + c * x;
                if v > 0.0 {
                    break (x, v * v * v);
                }
            };
            let u = self.double();
            if u < 1.0 - 0.0331 * (x * x) * (x * x) || u.ln() < 0.5 * x * x + b * (1.0 - v + v.ln())
            {
                return b * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // All expected values were computed with numpy 2.4.6.

    #[test]
    fn doubles_are_numpys() {
        let mut rng = RandomState::new(1);
        for expected in [
            0.417022004702574,
            0.7203244934421581,
            0.00011437481734488664,
            0.30233257263183977,
        ] {
            assert_eq!(rng.double(), expected);
        }
    }

    #[test]
    fn eighty_thousand_normal_deviates_are_numpys() {
        let mut rng = RandomState::new(1);
        let values: Vec<f64> = (0..10 * 5 * 1600).map(|_| rng.normal()).collect();
        assert_eq!(
            values[..8],
            [
                1.6243453636632417,
                -0.6117564136500754,
                -0.5281717522634557,
                -1.0729686221561705,
                0.8654076293246785,
                -2.3015386968802827,
                1.74481176421648,
                -0.7612069008951028
            ]
        );
        assert_eq!(values[1600], 0.29100454237039114);
        assert_eq!(values[6399], -1.8937820531482443);
        assert_eq!(values[79_999], 0.0809332667247678);
        // NumPy sums pairwise, so only the last bits of the sum may differ.
        let sum: f64 = values.iter().sum();
        assert!((sum - 167.46318572367412).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn uniform_deviates_are_numpys() {
        let mut rng = RandomState::new(1);
        for expected in [
            -0.165955990594852,
            0.4406489868843162,
            -0.9997712503653102,
            -0.39533485473632046,
            -0.7064882183657739,
            -0.8153228104624044,
        ] {
            assert_eq!(rng.uniform(-1.0, 1.0), expected);
        }
    }

    #[test]
    fn chi_square_deviates_are_numpys() {
        let mut rng = RandomState::new(2);
        for expected in [
            1.5438607459046478,
            2.2138815149120945,
            0.20774935783382983,
            0.9464088852915643,
            0.7128640593194294,
        ] {
            assert_eq!(rng.chisquare(3.0), expected);
        }
    }
}
