//! Matrix products on a processor.
//!
//! libtorch multiplies float32 with MKL, which on processors of other makers than its own leaves
//! their widest vectors unused: on a Zen 5 it reaches 55 GMAC/s a core, where oneDNN, which
//! libtorch holds too, reaches 125 on the same matrices (`benches/causal.rs` measures both).
//! oneDNN's product is an operator without a function in tch, so it is called by name, from a
//! module of three lines of TorchScript that is put together here. It has no gradient: where one
//! flows through float32 to what is multiplied, and none to the matrix, the product of tensors in
//! oneDNN's own layout has it. Elsewhere, and everywhere but on a CPU with AVX-512, libtorch's own
//! product is used.
//!
//! A row of oneDNN's product does not depend on how many rows it is computed with, from two on: a
//! single row goes another way through it and is therefore doubled. So results do not depend on how
//! rows are cut into batches. bfloat16 is multiplied by oneDNN either way.

use std::cell::Cell;
use std::io::{Cursor, Write};
use std::sync::OnceLock;

use tch::{CModule, Device, Kind, TchError, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::config::Activation;

thread_local!(static LIBTORCH: Cell<bool> = const { Cell::new(false) });

/// Does `work` with libtorch's own products, as other programs on libtorch have them.
pub fn with_libtorch_products<T>(work: impl FnOnce() -> T) -> T {
    /// Put back also when the work panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            LIBTORCH.set(self.0);
        }
    }
    let _before = Before(LIBTORCH.replace(true));
    work()
}

/// The products that models compute with, for who measures them.
#[derive(Debug)]
pub struct Products;

impl Products {
    /// `x`, `[.., in]`, times the transpose of `weight`, `[out, in]`.
    pub fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
        linear(x, weight, None, None)
    }
}

/// `x`, `[.., in]`, times the transpose of `weight`, `[out, in]`, plus `bias`; then the activation,
/// if any.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    activation: Option<Activation>,
) -> Tensor {
    let onednn = match weight.device() {
        Device::Cpu if !LIBTORCH.get() => onednn(),
        _ => None,
    };
    let frozen = !weight.requires_grad() && !bias.is_some_and(|bias| bias.requires_grad());
    let onednn = match onednn {
        Some(onednn) if frozen && !x.requires_grad() => onednn,
        seen => {
            let product = match seen {
                Some(_) if frozen && x.kind() == Kind::Float => {
                    let product = x.to_mkldnn().mkldnn_linear(weight, bias);
                    product.to_dense(None, false)
                }
                _ => x.linear(weight, bias),
            };
            return match activation {
                Some(activation) => activation.forward(&product),
                None => product,
            };
        }
    };
    if x.kind() == Kind::Half && !half_is_native() {
        // Products of halves are emulated one by one: in float32 they are exact and ten times as
        // fast.
        let wide = |t: &Tensor| t.to_kind(Kind::Float);
        let bias = bias.map(wide);
        let product = linear(&wide(x), &wide(weight), bias.as_ref(), activation);
        return product.to_kind(Kind::Half);
    }
    let mut shape = x.size();
    let single = shape.iter().rev().skip(1).product::<i64>() == 1;
    let method = match activation {
        None => "plain",
        Some(Activation::Gelu) => "gelu",
        Some(Activation::GeluTanh) => "gelu_tanh",
        Some(Activation::Silu) => "silu",
        Some(Activation::Relu) => "relu",
    };
    let inputs = shape.pop().unwrap_or_default();
    let doubled = single.then(|| x.reshape([1, inputs]).repeat([2, 1]));
    let call = match bias {
        Some(bias) => onednn.method_ts(
            &format!("{method}_biased"),
            &[doubled.as_ref().unwrap_or(x), weight, bias],
        ),
        None => onednn.method_ts(method, &[doubled.as_ref().unwrap_or(x), weight]),
    };
    // As tch does with the errors of its own functions; out of memory is told apart by whoever can
    // do with less.
    let product = call.unwrap_or_else(|error| panic!("{error}"));
    match single {
        true => {
            shape.push(weight.size()[0]);
            product.narrow(0, 0, 1).view(shape.as_slice())
        }
        false => product,
    }
}

/// oneDNN's products; none where they are no faster than libtorch's, or not there.
fn onednn() -> Option<&'static CModule> {
    static MODULE: OnceLock<Option<CModule>> = OnceLock::new();
    MODULE
        .get_or_init(|| match wide_vectors() {
            true => module()
                .inspect_err(|error| {
                    tracing::warn!(
                        %error,
                        "this libtorch has no products of oneDNN: matrices are multiplied by its own, which may be slower"
                    );
                })
                .ok(),
            false => None,
        })
        .as_ref()
}

fn wide_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512dq");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

fn half_is_native() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512fp16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// The operators as methods of a TorchScript module.
fn module() -> Result<CModule, TchError> {
    let archive = archive().map_err(|error| TchError::FileFormat(error.to_string()))?;
    let mut module = CModule::load_data(&mut Cursor::new(archive))?;
    module.f_set_eval()?;
    Ok(module)
}

/// A saved module: an object without members, and the code of its class.
fn archive() -> Result<Vec<u8>, zip::result::ZipError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default());
    for (name, content) in [
        // An object of that class, and an empty tuple of constants, as Python pickles them.
        ("data.pkl", &b"\x80\x02c__torch__\nProducts\n)\x81}b."[..]),
        ("constants.pkl", b"\x80\x02)."),
        ("code/__torch__.py", code().as_bytes()),
        ("version", b"3\n"),
    ] {
        zip.start_file(format!("products/{name}"), options)?;
        zip.write_all(content)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn code() -> String {
    let mut code =
        "class Products(Module):\n  __parameters__ = []\n  __buffers__ = []\n".to_owned();
    for (method, activation, algorithm) in [
        ("plain", "none", ""),
        ("relu", "relu", ""),
        ("silu", "swish", ""),
        ("gelu", "gelu", "none"),
        ("gelu_tanh", "gelu", "tanh"),
    ] {
        for (suffix, parameter, bias) in [("", "", "None"), ("_biased", ", b: Tensor", "b")] {
            code += &format!(
                "  def {method}{suffix}(self: __torch__.Products, x: Tensor, w: Tensor{parameter}) -> Tensor:\n    \
                 return ops.mkldnn._linear_pointwise(x, w, {bias}, \"{activation}\", [], \"{algorithm}\")\n"
            );
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVATIONS: [Option<Activation>; 5] = [
        None,
        Some(Activation::Relu),
        Some(Activation::Silu),
        Some(Activation::Gelu),
        Some(Activation::GeluTanh),
    ];

    fn random(size: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let wide = |t: &Tensor| t.to_kind(Kind::Double);
        (wide(a) - wide(b)).abs().max().double_value(&[])
    }

    #[test]
    fn the_operators_are_there_where_they_are_wanted() {
        assert_eq!(onednn().is_some(), wide_vectors());
    }

    #[test]
    fn both_libraries_compute_the_same() {
        for (kind, within) in [
            (Kind::Float, 1e-5),
            (Kind::BFloat16, 0.04),
            (Kind::Half, 0.004),
        ] {
            for rows in [1, 2, 33] {
                let (x, weight) = (random(&[1, rows, 40], kind), random(&[24, 40], kind) * 0.1);
                let some_bias = random(&[24], kind);
                for activation in ACTIVATIONS {
                    for bias in [None, Some(&some_bias)] {
                        let found = linear(&x, &weight, bias, activation);
                        let expected =
                            with_libtorch_products(|| linear(&x, &weight, bias, activation));
                        assert_eq!(found.size(), [1, rows, 24]);
                        assert_eq!(found.kind(), kind);
                        let distance = distance(&found, &expected);
                        assert!(distance < within, "{kind:?} {rows} rows: {distance}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_to_the_bit_however_many_are_computed_with_it() {
        if !wide_vectors() {
            eprintln!("skipped: not promised without AVX-512");
            return;
        }
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for (inputs, outputs) in [(24, 72), (576, 960)] {
                let (x, weight) = (
                    random(&[300, inputs], kind),
                    random(&[outputs, inputs], kind),
                );
                let all = linear(&x, &weight, None, None);
                for rows in [1, 2, 3, 7, 16, 33, 64, 129, 299] {
                    let part = linear(&x.narrow(0, 1, rows), &weight, None, None);
                    assert!(
                        part.equal(&all.narrow(0, 1, rows)),
                        "{kind:?} {outputs} x {inputs}, {rows} rows"
                    );
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_libtorch() {
        let weight = random(&[24, 40], Kind::Float) * 0.1;
        let some_bias = random(&[24], Kind::Float);
        for rows in [1, 2, 33] {
            for bias in [None, Some(&some_bias)] {
                let x = random(&[2, rows, 40], Kind::Float).set_requires_grad(true);
                let gradient = |activation| {
                    let loss = linear(&x, &weight, bias, activation).square().sum(None);
                    Tensor::run_backward(&[loss], &[&x], false, false).remove(0)
                };
                for activation in ACTIVATIONS {
                    let found = gradient(activation);
                    let expected = with_libtorch_products(|| gradient(activation));
                    let distance = distance(&found, &expected);
                    assert!(distance < 1e-5, "{rows} rows: {distance}");
                }
            }
        }
    }

    #[test]
    fn gradients_flow_to_a_matrix() {
        let x = random(&[3, 8], Kind::Float);
        let weight = random(&[4, 8], Kind::Float).set_requires_grad(true);
        linear(&x, &weight, None, Some(Activation::Silu))
            .sum(Kind::Float)
            .backward();
        assert!(weight.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
    }
}
