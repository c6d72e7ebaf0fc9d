//! Mixtral (Jiang et al. 2024): Mistral with experts in the place of every MLP. How a configuration
//! and a file name experts is read here for other families, too.

use super::super::Error;
use super::super::config::{Config, Experts, Family, Fields, Routing};
use super::layout::{self, Dense, Layout, Linear, Mlp, Up};
use super::llama::{self, Defaults, common};

pub fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let mut config = common(
        fields,
        &Defaults {
            kv_heads: Some(8),
            norm_eps: 1e-5,
            theta: 1_000_000.0,
            ..Defaults::of(Family::Mixtral)
        },
    )?;
    let window = fields.maybe_size("sliding_window")?;
    for layer in &mut config.attention {
        layer.window = window;
    }
    config.experts = Some(experts(fields, &config, 8, 2)?);
    Ok(config)
}

/// What families name alike, with their defaults for the number of experts and for how many of them
/// a token goes to; for the rest what Mixtral has.
pub fn experts(
    fields: &Fields<'_>,
    config: &Config,
    count: usize,
    chosen: usize,
) -> Result<Experts, Error> {
    // One number in transformers, under either name.
    let [local, bare] = ["num_local_experts", "num_experts"];
    let count = match fields.maybe_size(local)? {
        Some(count) => count,
        None => fields.maybe_size(bare)?.unwrap_or(count),
    };
    fields.same(&[(bare, count)])?;
    Ok(Experts {
        count,
        chosen: fields.maybe_size("num_experts_per_tok")?.unwrap_or(chosen),
        inner: config.inner,
        routing: Routing::Normalised,
        clamped: false,
        layers: vec![true; config.layers],
    })
}

/// Experts with tensors of their own: the names of the router, and of each one's gate, up and down.
pub fn mixture(config: &Config, experts: &Experts, prefix: &str, names: [&str; 4]) -> Mlp {
    let (d, m) = (config.width, experts.inner);
    let [router, gate, up, down] = names;
    let expert = |n: usize| {
        let map = |name: &str, out, inp| {
            let name = format!("{prefix}.experts.{n}.{name}");
            Linear::new(&name, out, inp, false)
        };
        Dense {
            up: Up::Gated(Box::new([map(gate, m, d), map(up, m, d)])),
            down: map(down, d, m),
        }
    };
    Mlp::Mixture(layout::Mixture {
        router: Linear::new(&format!("{prefix}.{router}"), experts.count, d, false),
        experts: layout::Experts::Separate((0..experts.count).map(expert).collect()),
    })
}

pub fn layout(config: &Config) -> Layout {
    let mut layout = llama::layout(config);
    for (l, layer) in layout.layers.iter_mut().enumerate() {
        if let Some(experts) = config.experts_of(l) {
            let prefix = format!("model.layers.{l}.block_sparse_moe");
            layer.mlp = mixture(config, experts, &prefix, ["gate", "w1", "w3", "w2"]);
        }
    }
    layout
}
