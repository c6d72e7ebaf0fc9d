//! Several texts in one pass: those of about one length are filled up at their end, which no token
//! before sees, so that each gives what it gives alone.

use tch::Tensor;

use super::Error;
use super::decoder::Model;

/// Most tokens of one pass: what keeps its activations small on every device.
pub const PASS_TOKENS: usize = 2048;

/// Most tokens that a pass is filled up with: a pass reads every weight, which costs about as much
/// as so many tokens.
const FILL_TOKENS: usize = 64;

/// Parts texts, the longest first, into passes.
pub fn parted<T>(texts: &[T], tokens: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut from, mut filled) = (Vec::new(), 0, 0);
    for at in 0..texts.len() {
        let longest = tokens(&texts[from]);
        let fill = longest - tokens(&texts[at]);
        let full = longest * (at + 1 - from) > PASS_TOKENS || filled + fill > FILL_TOKENS;
        if at > from && full {
            parts.push(&texts[from..at]);
            (from, filled) = (at, 0);
        } else {
            filled += fill;
        }
    }
    if from < texts.len() {
        parts.push(&texts[from..]);
    }
    parts
}

/// The input of the first block for texts that are filled up to the first one's length,
/// `[texts, tokens, width]`.
///
/// # Errors
/// [`Error::TokenId`]; [`Error::Context`].
pub fn filled<'a>(
    model: &Model,
    texts: impl IntoIterator<Item = &'a [u32]>,
) -> Result<Tensor, Error> {
    let mut longest = None;
    let ids = texts.into_iter().map(|text| {
        let mut filled = text.to_vec();
        // By a token that is there already, which stays a number in any type.
        let last = filled.last().copied().unwrap_or_default();
        filled.resize(*longest.get_or_insert(text.len()), last);
        model.ids(&filled)
    });
    let ids: Vec<Tensor> = ids.collect::<Result<_, _>>()?;
    Ok(model.add_positions(&model.embed(&Tensor::cat(&ids, 0)), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_filled_up_by_few_tokens_and_has_few() {
        let parted = |lengths: &[usize]| -> Vec<Vec<usize>> {
            let parts = parted(lengths, |&length| length);
            parts.into_iter().map(<[usize]>::to_vec).collect()
        };
        assert_eq!(parted(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(parted(&[9, 8, 7, 1]), [[9, 8, 7, 1]]);
        assert_eq!(parted(&[70, 6, 5, 1]), [vec![70, 6], vec![5, 1]]);
        assert_eq!(parted(&[3000, 2999]), [[3000], [2999]]);
        let many = parted(&[20; 200]);
        assert_eq!(many[0].len(), PASS_TOKENS / 20);
        assert_eq!(many.iter().map(Vec::len).sum::<usize>(), 200);
    }
}
