//! The perplexity of texts.

use super::{Mean, Scored};

/// `exp(sum of -ln p over all tokens of all texts / tokens)`: as many tokens as a model hesitates
/// between at each.
///
/// Its interval is that of the texts' first-order effect on it (the delta method), since what
/// varies over sets of texts is a text with all its tokens, not a token.
pub fn perplexity(texts: &[Scored]) -> Mean {
    of_losses(texts.iter().map(|text| (text.tokens, text.nll)))
}

/// The perplexity after over that before, of the same texts in the same order: 1 where nothing
/// changed. Its interval is that of pairs, in which what is common to both cancels out.
pub fn perplexity_ratio(before: &[Scored], after: &[Scored]) -> Mean {
    let pairs = before.iter().zip(after);
    of_losses(pairs.map(|(before, after)| (after.tokens, after.nll - before.nll)))
}

/// The median over texts of the perplexity of each.
pub fn median_perplexity(texts: &[Scored]) -> f64 {
    let mut each: Vec<f64> = texts.iter().map(|text| text.nll.exp()).collect();
    each.sort_by(f64::total_cmp);
    match each.len() {
        0 => f64::NAN,
        n => (each[(n - 1) / 2] + each[n / 2]) / 2.0,
    }
}

/// `exp` of a mean over tokens, from texts' tokens and their means.
fn of_losses(texts: impl Iterator<Item = (usize, f64)>) -> Mean {
    let texts: Vec<(f64, f64)> = texts.map(|(n, mean)| (n as f64, mean)).collect();
    let tokens: f64 = texts.iter().map(|(n, _)| n).sum();
    let loss = texts.iter().map(|(n, mean)| n * mean).sum::<f64>() / tokens;
    let a_text = tokens / texts.len() as f64;
    let effect = |(n, mean): &(f64, f64)| loss.exp() * (1.0 + n * (mean - loss) / a_text);
    let effects: Vec<f64> = texts.iter().map(effect).collect();
    Mean {
        mean: loss.exp(),
        ..Mean::over(&effects)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(tokens: usize, perplexity: f64) -> Scored {
        Scored {
            nll: perplexity.ln(),
            tokens,
            likeliest: 0,
        }
    }

    #[test]
    fn a_long_text_counts_as_its_tokens_do() {
        let texts = [text(3, 2.0), text(1, 32.0)];
        let found = perplexity(&texts);
        // 2^((3 * 1 + 1 * 5) / 4) = 4.
        assert!((found.mean - 4.0).abs() < 1e-12);
        assert_eq!(found.count, 2);
        assert!((median_perplexity(&texts) - 17.0).abs() < 1e-12);
        assert!((median_perplexity(&[text(3, 2.0)]) - 2.0).abs() < 1e-12);
        assert!(median_perplexity(&[]).is_nan());
        assert_eq!(perplexity(&[text(5, 7.0)]).interval(), None);
    }

    #[test]
    fn what_is_the_same_factor_everywhere_is_known_without_error() {
        let before = [text(3, 2.0), text(1, 32.0), text(9, 5.0)];
        let after = before.map(|it| Scored {
            nll: it.nll + 1.1_f64.ln(),
            ..it
        });
        let ratio = perplexity_ratio(&before, &after);
        assert!((ratio.mean - 1.1).abs() < 1e-12);
        assert!(ratio.half.unwrap() < 1e-12);
        assert!(perplexity(&after).half.unwrap() > 1.0);
    }

    #[test]
    fn the_interval_is_what_sets_of_texts_vary_by() {
        // Texts of two kinds, half of either: the mean loss varies as that of a coin.
        let texts: Vec<Scored> = (0..100)
            .map(|n| text(10, if n % 2 == 0 { 2.0 } else { 8.0 }))
            .collect();
        let found = perplexity(&texts);
        let sd = (4.0_f64.ln() / 2.0) * (100.0_f64 / 99.0).sqrt();
        let expected = 4.0 * 1.96 * sd / 10.0;
        assert!((found.half.unwrap() - expected).abs() < 1e-9);
    }
}
