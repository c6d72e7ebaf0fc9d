//! The Merkle tree of RFC 6962 (certificate transparency): SHA-256, a leaf hashed behind a zero
//! byte and a node behind a one, so that neither can pass for the other.
//!
//! A tree over `n` leaves splits at the largest power of two below `n`. Proofs are made from the
//! leaves' hashes; they are checked by the iterations of RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use sha2::{Digest as _, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf.
pub fn leaf(data: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(data)
        .finalize()
        .into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let hasher = Sha256::new().chain_update([1]);
    hasher
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root over leaves' hashes; that of no leaf is the hash of nothing.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `n`, for `n` over one.
fn split(n: usize) -> usize {
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

/// The path that proves that leaf `index` is in the tree over these leaves, from the leaf up.
pub fn inclusion(leaves: &[Hash], index: usize) -> Vec<Hash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if index < left.len() {
        (inclusion(left, index), root(right))
    } else {
        (inclusion(right, index - left.len()), root(left))
    };
    path.push(sibling);
    path
}

/// The proof that the tree over these leaves goes on from that over the first `old` of them.
pub fn consistency(leaves: &[Hash], old: usize) -> Vec<Hash> {
    if old == 0 || old >= leaves.len() {
        return Vec::new();
    }
    subproof(leaves, old, true)
}

/// `whole`: whether the first `old` leaves are a subtree whose root the verifier knows already.
fn subproof(leaves: &[Hash], old: usize, whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole {
            Vec::new()
        } else {
            vec![root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, sibling) = if old <= left.len() {
        (subproof(left, old, whole), root(right))
    } else {
        (subproof(right, old - left.len(), false), root(left))
    };
    proof.push(sibling);
    proof
}

/// Whether `path` proves that `leaf` is leaf `index` of the tree of `size` leaves with this root.
pub fn is_included(leaf: &Hash, index: u64, size: u64, path: &[Hash], expected: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *expected
}

/// Whether `proof` proves that the tree of `new_size` leaves goes on from that of `old_size`.
pub fn is_consistent(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> bool {
    if old_size == 0 {
        return proof.is_empty() && *old_root == root(&[]);
    }
    if old_size >= new_size {
        return old_size == new_size && proof.is_empty() && old_root == new_root;
    }
    // A whole subtree of a power of two begins with the root that the verifier has.
    let mut hashes = Vec::with_capacity(proof.len() + 1);
    if old_size.is_power_of_two() {
        hashes.push(*old_root);
    }
    hashes.extend_from_slice(proof);
    let Some((first, rest)) = hashes.split_first() else {
        return false;
    };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node(hash, &old);
            new = node(hash, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node(&new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *new_root
}

/// What of a tree is needed to append to it: the roots of its whole subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier with these peaks, if a tree of this size has so many.
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Leaves of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of its whole subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf's hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // As many whole subtrees close as the size has ones at its end.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => root(&[]),
            Some(last) => peaks.fold(*last, |right, left| node(left, &right)),
        }
    }
}

/// A hash in hexadecimal.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash that [`hex`] wrote.
pub fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    (digits.len() == hash.len() && rest.is_empty()).then_some(())?;
    for (byte, pair) in hash.iter_mut().zip(digits) {
        let pair = str::from_utf8(pair).ok()?;
        let plain = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| plain)?;
    }
    Some(hash)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_back_from_its_digits_and_from_nothing_else() {
        let hash: Hash = std::array::from_fn(|n| n as u8 * 8);
        assert_eq!(from_hex(&hex(&hash)), Some(hash));
        let digits = hex(&hash);
        for wrong in [
            "",
            &digits[1..],
            &digits.replacen("00", "+0", 1),
            &format!("{digits}00"),
        ] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn hashes(hex: &[&str]) -> Vec<Hash> {
        hex.iter().map(|h| bytes(h).try_into().unwrap()).collect()
    }

    // The inputs, roots and proofs of certificate-transparency's own tests (merkle_tree_test.cc),
    // which other implementations of RFC 6962 repeat.
    const INPUTS: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves() -> Vec<Hash> {
        INPUTS.iter().map(|input| leaf(&bytes(input))).collect()
    }

    #[test]
    fn roots_are_those_of_the_published_vectors() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&root(&[])), empty);
        let mut frontier = Frontier::default();
        assert_eq!(hex(&frontier.root()), empty);
        for (n, expected) in ROOTS.iter().enumerate() {
            assert_eq!(hex(&root(&leaves()[..=n])), *expected, "{} leaves", n + 1);
            frontier.push(leaves()[n]);
            assert_eq!(hex(&frontier.root()), *expected, "{} pushed", n + 1);
        }
    }

    #[test]
    fn proofs_are_those_of_the_published_vectors() {
        let first = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
        let second = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
        let third = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";
        let fifth = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
        let pair = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
        let sixth = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
        let all = leaves();
        assert_eq!(inclusion(&all[..1], 0), hashes(&[]));
        assert_eq!(inclusion(&all, 0), hashes(&[first, second, third]));
        assert_eq!(inclusion(&all, 5), hashes(&[fifth, pair, ROOTS[3]]));
        assert_eq!(inclusion(&all[..3], 2), hashes(&[ROOTS[1]]));
        assert_eq!(inclusion(&all[..5], 1), hashes(&[ROOTS[0], second, fifth]));
        assert_eq!(consistency(&all[..1], 1), hashes(&[]));
        assert_eq!(consistency(&all, 1), hashes(&[first, second, third]));
        assert_eq!(consistency(&all, 6), hashes(&[sixth, pair, ROOTS[3]]));
        assert_eq!(consistency(&all[..5], 2), hashes(&[second, fifth]));
    }

    #[test]
    fn every_proof_of_every_tree_holds_and_no_altered_one_does() {
        let all: Vec<Hash> = (0..70u32).map(|n| leaf(&n.to_be_bytes())).collect();
        for size in 1..=all.len() {
            let tree = &all[..size];
            let top = root(tree);
            for index in 0..size {
                let mut path = inclusion(tree, index);
                let holds =
                    |path: &[Hash], leaf| is_included(leaf, index as u64, size as u64, path, &top);
                assert!(holds(&path, &tree[index]), "{index} of {size}");
                let another = leaf(b"another");
                assert!(!holds(&path, &another));
                for at in 0..path.len() {
                    path[at][7] ^= 1;
                    assert!(!holds(&path, &tree[index]));
                    path[at][7] ^= 1;
                }
                path.push(top);
                assert!(!holds(&path, &tree[index]), "a path that is too long");
            }
            for old in 0..=size {
                let (before, mut proof) = (root(&tree[..old]), consistency(tree, old));
                let holds = |proof: &[Hash], before: &Hash| {
                    is_consistent(old as u64, before, size as u64, &top, proof)
                };
                assert!(holds(&proof, &before), "{old} to {size}");
                assert!(!holds(&proof, &leaf(b"another")));
                for at in 0..proof.len() {
                    proof[at][0] ^= 1;
                    assert!(!holds(&proof, &before));
                    proof[at][0] ^= 1;
                }
            }
        }
    }
}
