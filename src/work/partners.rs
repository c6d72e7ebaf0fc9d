//! Which facts of a sweep may lend a fact the prompt that corrupts it: what their texts say. That
//! they fit, token by token and answer by answer, only the model can say.

use super::Items;
use crate::proto::v1;

/// Most facts that are looked at for one.
const LOOKED_AT: usize = 2_048;
/// Most partners of a fact that a model is to try.
pub(super) const MOST: usize = 64;

/// The partners of fact `n`, in the order in which they are to be tried: facts of its relation and
/// template with another subject and another answer, those of as many words first. Where the
/// search begins follows from the seed.
pub(super) fn partners(items: &Items, n: usize, fact: &v1::Fact, seed: u32) -> Vec<v1::Fact> {
    let Some(template) = template(fact) else {
        return Vec::new();
    };
    let words = fact.subject.split_whitespace().count();
    let from = mixed(seed, n as u64) % items.len().max(1) as u64;
    let ring = (0..items.len()).map(|step| (from as usize + step) % items.len());
    let mut found: [Vec<v1::Fact>; 2] = Default::default();
    for other in ring.filter(|&other| other != n).take(LOOKED_AT) {
        let Some(mut other) = items.message::<v1::Fact>(other) else {
            continue;
        };
        let fits = other.relation == fact.relation
            && other.subject != fact.subject
            && (other.attribute.is_none() || other.attribute != fact.attribute)
            && self::template(&other) == Some(template);
        if fits {
            let as_long = other.subject.split_whitespace().count() == words;
            // What corrupts a partner itself is of no use here.
            (other.corrupted, other.foil) = (None, None);
            found[usize::from(!as_long)].push(other);
            if found[0].len() == MOST {
                break;
            }
        }
    }
    let [mut first, rest] = found;
    first.extend(rest);
    first.truncate(MOST);
    first
}

/// A prompt before and behind its subject.
fn template(fact: &v1::Fact) -> Option<(&str, &str)> {
    let start = match fact.subject_start {
        Some(start) => start as usize,
        None => fact.prompt.find(&fact.subject)?,
    };
    let before = fact.prompt.get(..start)?;
    Some((before, fact.prompt.get(start + fact.subject.len()..)?))
}

/// A number that looks drawn by chance (SplitMix64): the same one everywhere.
fn mixed(seed: u32, n: u64) -> u64 {
    let mut z = (u64::from(seed) << 32 ^ n).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(subject: &str, answer: &str, relation: &str) -> v1::Fact {
        v1::Fact {
            prompt: format!("{subject} lies in"),
            subject: subject.to_owned(),
            attribute: Some(answer.to_owned()),
            relation: Some(relation.to_owned()),
            ..Default::default()
        }
    }

    fn subjects(facts: &[v1::Fact], n: usize, seed: u32) -> Vec<String> {
        let items = Items::of(&v1::FactList {
            facts: facts.to_vec(),
        });
        let found = partners(&items, n, &facts[n], seed).into_iter();
        found.map(|it| it.subject).collect()
    }

    #[test]
    fn partners_share_relation_and_template_and_differ_in_subject_and_answer() {
        let facts = [
            fact("Lyon", "France", "city"),
            fact("Paris", "France", "city"),
            fact("Rome", "Italy", "city"),
            fact("Rome", "Italy", "club"),
            fact("New York", "America", "city"),
            v1::Fact {
                prompt: "Where is Bern?".into(),
                subject: "Bern".into(),
                ..fact("", "Switzerland", "city")
            },
        ];
        // Of as many words first.
        assert_eq!(subjects(&facts, 0, 1), ["Rome", "New York"]);
        assert!(subjects(&facts, 3, 1).is_empty());
        assert!(subjects(&facts, 5, 1).is_empty());
    }

    #[test]
    fn the_seed_decides_the_order_and_no_fact_has_too_many() {
        let facts: Vec<v1::Fact> = (0..200)
            .map(|n| fact(&format!("Town{n}"), &format!("Land{n}"), "city"))
            .collect();
        let found = subjects(&facts, 3, 1);
        assert_eq!(found.len(), MOST);
        assert_eq!(found, subjects(&facts, 3, 1));
        assert_ne!(found, subjects(&facts, 3, 2));
    }
}
