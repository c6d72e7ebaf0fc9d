//! Noise on the subject's embeddings: the rules a user writes, and the draws they stand for.
//!
//! ```text
//! rule = [ "replace:" ] law
//! law  = number        Gaussian with this standard deviation
//!      | "s" number    Gaussian; the standard deviation is this factor times the spread of the
//!                      subjects' embeddings (one number for a whole sweep)
//!      | "u" number    uniform in [-number, number]
//!      | "m"           Gaussian with the mean and covariance of token embeddings over a corpus
//!      | "t" number    Student-t with this many degrees of freedom (over 2) and that mean and covariance
//! ```
//!
//! Without `replace:` the draws are added to the embeddings, with it they take their place.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::error::Error;
use super::rng::RandomState;

const REPLACE: &str = "replace:";

/// A noise rule as written. Reads back from its [`Display`](fmt::Display) form.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// The distribution to draw from.
    pub law: Law,
    /// Overwrite the embeddings instead of adding to them.
    pub replace: bool,
}

/// The distribution of a [`Rule`]. Scales are in units of the embeddings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// Gaussian with this standard deviation.
    Gaussian(f64),
    /// Gaussian with this factor times the spread of the subjects' embeddings.
    Spread(f64),
    /// Uniform in `[-a, a]`.
    Uniform(f64),
    /// Gaussian with the mean and covariance of the embeddings over a corpus.
    Multivariate,
    /// Student-t with these degrees of freedom and that mean and covariance.
    Student(f64),
}

impl Default for Rule {
    /// `s3`, as published.
    fn default() -> Self {
        Self {
            law: Law::Spread(3.0),
            replace: false,
        }
    }
}

impl Rule {
    /// Whether the rule draws from the embeddings of a corpus.
    pub fn needs_corpus(&self) -> bool {
        matches!(self.law, Law::Multivariate | Law::Student(_))
    }

    /// Turns the rule into noise to draw.
    ///
    /// `spread` is the unbiased standard deviation of the subjects' embeddings, which `s<k>` needs;
    /// `gaussian` the embeddings' mean and covariance, which `m` and `t<df>` need.
    ///
    /// # Errors
    /// [`Error::NoiseUnresolved`] when the statistic that the law needs is not given.
    pub fn resolve(
        &self,
        spread: Option<f64>,
        gaussian: Option<Arc<EmbeddingGaussian>>,
    ) -> Result<Noise, Error> {
        let unresolved = |needs| Error::NoiseUnresolved {
            rule: self.to_string(),
            needs,
        };
        let over_corpus = || {
            gaussian.ok_or_else(|| {
                unresolved("the mean and covariance of the model's embeddings over a corpus")
            })
        };
        let source = match self.law {
            Law::Gaussian(sd) => Source::Gaussian(sd),
            Law::Spread(factor) => {
                Source::Gaussian(factor * spread.ok_or_else(|| {
                    unresolved("the spread of the subjects' embeddings, which is measured over the whole fact set")
                })?)
            }
            Law::Uniform(a) => Source::Uniform(a),
            Law::Multivariate => Source::Multivariate(over_corpus()?),
            Law::Student(degrees) => Source::Student(degrees, over_corpus()?),
        };
        Ok(Noise {
            source,
            replace: self.replace,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.replace {
            f.write_str(REPLACE)?;
        }
        match self.law {
            Law::Gaussian(sd) => write!(f, "{sd}"),
            Law::Spread(factor) => write!(f, "s{factor}"),
            Law::Uniform(a) => write!(f, "u{a}"),
            Law::Multivariate => f.write_str("m"),
            Law::Student(degrees) => write!(f, "t{degrees}"),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |problem: String| Error::NoiseRule {
            text: text.to_owned(),
            problem,
        };
        let (replace, law) = match text.strip_prefix(REPLACE) {
            Some(law) => (true, law),
            None => (false, text),
        };
        let scale = |digits: &str, name: &str| -> Result<f64, Error> {
            match digits.parse::<f64>() {
                // How much is too much for a model's numbers, the model shows.
                Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
                Ok(value) => Err(error(format!("{name} {value} is not zero or more"))),
                Err(_) => Err(error(format!("{name} `{digits}` is not a number"))),
            }
        };
        let law = match law.chars().next() {
            None => return Err(error("nothing to draw from".to_owned())),
            Some('s') => Law::Spread(scale(&law[1..], "the factor")?),
            Some('u') => Law::Uniform(scale(&law[1..], "the half width")?),
            Some('t') => {
                let degrees = scale(&law[1..], "the degrees of freedom")?;
                if degrees <= 2.0 {
                    return Err(error(format!(
                        "with {degrees} degrees of freedom the variance is infinite, so take more than 2"
                    )));
                }
                Law::Student(degrees)
            }
            Some('m') if law == "m" => Law::Multivariate,
            Some(_) => Law::Gaussian(scale(law, "the standard deviation")?),
        };
        Ok(Self { law, replace })
    }
}

/// Mean and covariance of token embeddings, as a map from standard normal deviates.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingGaussian {
    mean: Vec<f64>,
    /// Symmetric square root of the covariance, row-major `[width, width]`.
    root: Vec<f64>,
}

impl EmbeddingGaussian {
    /// `mean` of `width` numbers and `root`, row-major `[width, width]`, with `root root^T` the
    /// covariance.
    ///
    /// # Panics
    /// When `root` is not as large as `mean` asks for.
    pub fn new(mean: Vec<f64>, root: Vec<f64>) -> Self {
        assert_eq!(root.len(), mean.len() * mean.len(), "root is square");
        Self { mean, root }
    }

    /// Width of the embeddings.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Square root of the mean variance of a channel, in units of the embeddings: one number for
    /// how strong the noise is, beside the standard deviation of the plain Gaussian.
    pub fn scale(&self) -> f64 {
        // The trace of `root root^T` is the sum of the root's squares.
        let trace: f64 = self.root.iter().map(|r| r * r).sum();
        (trace / self.mean.len() as f64).sqrt()
    }

    /// `out = mean + root z`, summed in one fixed order.
    fn map(&self, z: &[f64], out: &mut [f64]) {
        for ((row, mean), out) in self.root.chunks_exact(z.len()).zip(&self.mean).zip(out) {
            *out = mean + row.iter().zip(z).map(|(r, z)| r * z).sum::<f64>();
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Gaussian(f64),
    Uniform(f64),
    Multivariate(Arc<EmbeddingGaussian>),
    Student(f64, Arc<EmbeddingGaussian>),
}

/// Noise with every statistic known: what each shard of a sweep draws, equal in all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    source: Source,
    replace: bool,
}

impl Noise {
    /// Gaussian noise with standard deviation `sd`, added to the embeddings.
    pub fn gaussian(sd: f64) -> Self {
        Self {
            source: Source::Gaussian(sd),
            replace: false,
        }
    }

    /// The rule that stands for this noise, with `s<k>` turned into its number. Results carry it.
    pub fn rule(&self) -> Rule {
        Rule {
            law: match &self.source {
                Source::Gaussian(sd) => Law::Gaussian(*sd),
                Source::Uniform(a) => Law::Uniform(*a),
                Source::Multivariate(_) => Law::Multivariate,
                Source::Student(degrees, _) => Law::Student(*degrees),
            },
            replace: self.replace,
        }
    }

    /// Whether the draws take the place of the embeddings instead of being added.
    pub fn replaces(&self) -> bool {
        self.replace
    }

    /// Whether the noise leaves every embedding as it is, so that the corrupted run is the clean
    /// one.
    pub fn is_none(&self) -> bool {
        !self.replace && matches!(self.source, Source::Gaussian(0.0) | Source::Uniform(0.0))
    }

    /// An error when the noise was made for embeddings of another width.
    pub fn check_width(&self, width: usize) -> Result<(), Error> {
        match &self.source {
            Source::Multivariate(gaussian) | Source::Student(_, gaussian)
                if gaussian.width() != width =>
            {
                Err(Error::NoiseWidth {
                    rule: self.rule().to_string(),
                    noise: gaussian.width(),
                    model: width,
                })
            }
            _ => Ok(()),
        }
    }

    /// The draws of `RandomState(seed)`. Each call of [`Draws::next`] goes on where the last one
    /// ended.
    pub fn draws(&self, seed: u32) -> Draws<'_> {
        Draws {
            noise: self,
            seed,
            rng: RandomState::new(seed),
        }
    }
}

/// A stream of noise for one fact.
pub struct Draws<'a> {
    noise: &'a Noise,
    seed: u32,
    rng: RandomState,
}

impl Draws<'_> {
    /// Whether they take the place of the embeddings instead of being added.
    pub fn replace(&self) -> bool {
        self.noise.replace
    }

    /// Scaled draws `[samples, tokens, width]`, row-major, so that fewer samples are a prefix of
    /// more.
    ///
    /// Student-t noise takes its chi-square factors from `RandomState(seed + 1)`, one a sample and
    /// token, anew in each call: with the default seed 1 these are the published code's.
    pub fn next(&mut self, samples: usize, tokens: usize, width: usize) -> Vec<f64> {
        let mut values = vec![0.0; samples * tokens * width];
        match &self.noise.source {
            Source::Gaussian(sd) => values
                .iter_mut()
                .for_each(|value| *value = sd * self.rng.normal()),
            Source::Uniform(a) => values
                .iter_mut()
                .for_each(|value| *value = a * self.rng.uniform(-1.0, 1.0)),
            Source::Multivariate(gaussian) => {
                self.correlated(gaussian, width, &mut values);
            }
            Source::Student(degrees, gaussian) => {
                self.correlated(gaussian, width, &mut values);
                let mut chi = RandomState::new(self.seed.wrapping_add(1));
                for vector in values.chunks_exact_mut(width) {
                    // Scaled by df - 2, not df: the variance is then that of the embeddings.
                    let factor = ((degrees - 2.0) / chi.chisquare(*degrees)).sqrt();
                    vector.iter_mut().for_each(|value| *value *= factor);
                }
            }
        }
        values
    }

    fn correlated(&mut self, gaussian: &EmbeddingGaussian, width: usize, values: &mut [f64]) {
        let mut z = vec![0.0; width];
        for vector in values.chunks_exact_mut(width) {
            z.iter_mut().for_each(|z| *z = self.rng.normal());
            gaussian.map(&z, vector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_reads_back() {
        for text in [
            "0.1",
            "0",
            "s3",
            "s2.5",
            "u0.5",
            "m",
            "t5",
            "replace:0.5",
            "replace:s3",
            "replace:m",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        assert_eq!(Rule::default().to_string(), "s3");
        let sd = 0.13462981581687927;
        assert_eq!(
            Noise::gaussian(sd)
                .rule()
                .to_string()
                .parse::<Rule>()
                .unwrap()
                .law,
            Law::Gaussian(sd)
        );
    }

    #[test]
    fn errors_name_the_text_and_what_is_allowed() {
        for text in [
            "", "x", "s", "sx", "-1", "nan", "inf", "u-1", "m3", "t2", "t", "replace:", "é",
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
            assert!(
                error.contains("s<factor>") && error.contains("replace:"),
                "{error}"
            );
        }
    }

    #[test]
    fn fewer_samples_are_a_prefix_of_more() {
        let gaussian = Arc::new(EmbeddingGaussian::new(
            vec![0.5, -0.5, 0.0, 1.0],
            (0..16).map(f64::from).collect(),
        ));
        for rule in ["0.3", "u0.2", "m", "t3"] {
            let noise = rule
                .parse::<Rule>()
                .unwrap()
                .resolve(None, Some(gaussian.clone()))
                .unwrap();
            let few = noise.draws(1).next(2, 3, 4);
            let many = noise.draws(1).next(5, 3, 4);
            assert_eq!(few, many[..few.len()], "{rule}");
        }
    }

    #[test]
    fn draws_are_the_scaled_stream_of_the_seed() {
        let mut rng = RandomState::new(7);
        let expected: Vec<f64> = (0..12).map(|_| 0.3 * rng.normal()).collect();
        let noise = Noise::gaussian(0.3);
        let mut draws = noise.draws(7);
        assert_eq!(draws.next(1, 2, 3), expected[..6]);
        assert_eq!(draws.next(1, 2, 3), expected[6..]);
    }

    #[test]
    fn correlated_noise_has_the_given_mean_and_covariance() {
        // covariance [[4, 2], [2, 2]] has the square root below (any square root would do)
        let gaussian = Arc::new(EmbeddingGaussian::new(
            vec![1.0, -1.0],
            vec![2.0, 0.0, 1.0, 1.0],
        ));
        for (rule, tolerance) in [("m", 0.1), ("t8", 0.25)] {
            let noise = rule
                .parse::<Rule>()
                .unwrap()
                .resolve(None, Some(gaussian.clone()))
                .unwrap();
            assert!(
                (gaussian.scale() - 3f64.sqrt()).abs() < 1e-12,
                "variances 4 and 2"
            );
            let values = noise.draws(1).next(20_000, 1, 2);
            let n = 20_000.0;
            let mean = |i: usize| values.iter().skip(i).step_by(2).sum::<f64>() / n;
            let (a, b) = (mean(0), mean(1));
            let cov = |i: usize, j: usize| {
                values
                    .chunks(2)
                    .map(|v| (v[i] - [a, b][i]) * (v[j] - [a, b][j]))
                    .sum::<f64>()
                    / n
            };
            // Student's factor scales the mean too, as published; it is one on average only for
            // `m`.
            if rule == "m" {
                assert!((a - 1.0).abs() < tolerance && (b + 1.0).abs() < tolerance);
                assert!((cov(0, 0) - 4.0).abs() < tolerance);
                assert!((cov(0, 1) - 2.0).abs() < tolerance);
            }
            assert!((cov(1, 1) - 2.0).abs() < tolerance, "{}", cov(1, 1));
        }
    }

    #[test]
    fn a_rule_without_its_statistic_says_what_it_needs() {
        let spread = "s3".parse::<Rule>().unwrap();
        assert!(
            spread
                .resolve(None, None)
                .unwrap_err()
                .to_string()
                .contains("spread")
        );
        assert_eq!(
            spread.resolve(Some(0.1), None).unwrap(),
            Noise::gaussian(3.0 * 0.1)
        );
        let corpus = "t5".parse::<Rule>().unwrap();
        assert!(
            corpus
                .resolve(None, None)
                .unwrap_err()
                .to_string()
                .contains("corpus")
        );
    }
}
