//! Averages of a sweep between the contract and the code that averages.

use super::{
    direction, direction_to_proto, engine, engine_to_proto, kind, kind_to_proto, metric,
    metric_to_proto, paths, paths_to_proto,
};
use crate::causal::{Averages, Grid, Mean, Role};
use crate::proto::v1;

fn role_to_proto(role: Role) -> v1::TokenRole {
    match role {
        Role::FirstSubject => v1::TokenRole::FirstSubject,
        Role::MiddleSubject => v1::TokenRole::MiddleSubject,
        Role::LastSubject => v1::TokenRole::LastSubject,
        Role::FirstSubsequent => v1::TokenRole::FirstSubsequent,
        Role::Further => v1::TokenRole::Further,
        Role::Last => v1::TokenRole::Last,
        Role::Every => v1::TokenRole::Every,
    }
}

fn mean_to_proto(mean: &Mean) -> v1::Mean {
    v1::Mean {
        rows: mean.rows,
        mean: mean.mean,
        half_width: mean.half_width(),
    }
}

fn mean(sent: Option<&v1::Mean>) -> Mean {
    sent.map_or_else(Mean::default, |sent| {
        Mean::known(sent.rows, sent.mean, sent.half_width)
    })
}

/// Averages as they travel; `relation` is the one that they are of, if they are of one.
pub fn averages_to_proto(averages: &Averages, relation: Option<String>) -> v1::KindAverages {
    let by_role = |&role: &Role| v1::RoleEffects {
        role: role_to_proto(role) as i32,
        by_layer: averages.role(role).iter().map(mean_to_proto).collect(),
        share: averages.shares(role).iter().map(mean_to_proto).collect(),
    };
    let (engine, attribution_steps, grad_drop) = engine_to_proto(averages.engine);
    v1::KindAverages {
        kind: kind_to_proto(averages.kind, averages.severed) as i32,
        relation,
        layers: averages.layers as u32,
        wrong: averages.wrong,
        clean: Some(mean_to_proto(&averages.high)),
        corrupted: Some(mean_to_proto(&averages.low)),
        total_effect: Some(mean_to_proto(&averages.total_effect)),
        roles: averages.roles().iter().map(by_role).collect(),
        metric: metric_to_proto(averages.metric) as i32,
        direction: direction_to_proto(averages.direction) as i32,
        without_share: averages.without_share,
        heads: match averages.kind.is_of_heads() {
            true => averages.heads as u32,
            false => 0,
        },
        paths: averages.paths.as_ref().map(paths_to_proto),
        engine: engine.into(),
        attribution_steps,
        grad_drop,
        whole_answers: averages.whole_answers,
    }
}

/// Averages as they came; none of a kind, a role or a number of layers or heads that there is not.
pub fn averages(sent: &v1::KindAverages) -> Option<Averages> {
    let (kind, severed) = kind(sent.kind())?;
    let layers = sent.layers as usize;
    let heads = match kind.is_of_heads() {
        true => sent.heads as usize,
        false => 1,
    };
    let cells = layers.checked_mul(heads)?;
    let roles = Role::of_kind(kind);
    let fits = sent.roles.len() == roles.len()
        && roles.iter().zip(&sent.roles).all(|(&role, sent)| {
            sent.role() == role_to_proto(role) && sent.by_layer.len() == cells
        });
    let of_role = |role: &v1::RoleEffects| role.by_layer.iter().map(|it| mean(Some(it))).collect();
    let share = |role: &v1::RoleEffects| {
        let mut means: Vec<Mean> = role.share.iter().map(|it| mean(Some(it))).collect();
        means.resize(role.by_layer.len(), Mean::default()); // an older server sends none
        means
    };
    fits.then(|| Averages {
        kind,
        severed,
        metric: metric(sent.metric()).unwrap_or_default(),
        direction: direction(sent.direction()),
        paths: sent.paths.as_ref().and_then(paths),
        engine: engine(sent.engine(), sent.attribution_steps, sent.grad_drop),
        whole_answers: sent.whole_answers,
        layers,
        heads,
        wrong: sent.wrong,
        high: mean(sent.clean.as_ref()),
        low: mean(sent.corrupted.as_ref()),
        total_effect: mean(sent.total_effect.as_ref()),
        indirect_effect: sent.roles.iter().map(of_role).collect(),
        share: sent.roles.iter().map(share).collect(),
        without_share: sent.without_share,
    })
}

/// Where a grid's effect is highest; none where nothing was traced.
pub fn peak(grid: &Grid) -> Option<v1::GridPeak> {
    let (at, score) = grid.peak()?;
    let role = match at.token {
        Some(token) => Role::of(grid, token),
        None => Some(Role::Every),
    };
    Some(v1::GridPeak {
        token: at.token.unwrap_or_default() as u32,
        layer: at.layer as u32,
        head: at.head.map(|head| head as u32),
        neuron: at.neuron,
        effect: grid.effect(score)?,
        role: role.map_or(0, |role| role_to_proto(role) as i32),
        text: match at.token {
            Some(token) => grid.tokens.get(token)?.text.clone(),
            None => String::new(),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::causal::grid::tests::grid;
    use crate::causal::{Direction, Kind};

    #[test]
    fn averages_come_back_with_their_intervals() {
        let rows: Vec<&[f64]> = vec![&[0.5, 0.2], &[0.3, 0.1], &[0.9, 0.4], &[0.2, 0.2]];
        let grids = [grid(0..2, 0.9, 0.1, &rows), grid(1..3, 0.7, 0.15, &rows)];
        let made = Averages::over(&grids).unwrap().unwrap();
        let sent = averages_to_proto(&made, Some("P17".to_owned()));
        let back = averages(&sent).unwrap();
        assert_eq!((back.kind, back.layers), (made.kind, made.layers));
        for role in Role::ALL {
            for (back, made) in back.role(role).iter().zip(made.role(role)) {
                assert_eq!((back.rows, back.mean), (made.rows, made.mean));
                let halves = back.half_width().zip(made.half_width());
                if let Some((one, other)) = halves {
                    assert!((one - other).abs() < 1e-12, "{one} {other}");
                }
            }
        }
        assert_eq!(back.locate().unwrap().layer, made.locate().unwrap().layer);
        // What fits no table of averages is none.
        let mut short = sent.clone();
        short.roles.pop();
        assert!(averages(&short).is_none());
        let mut uneven = sent;
        uneven.roles[2].by_layer.pop();
        assert!(averages(&uneven).is_none());
    }

    #[test]
    fn averages_and_peaks_of_heads_come_back_with_their_heads() {
        let rows: [&[f64]; 2] = [&[0.1, 0.2, 0.3, 0.4], &[0.5, 0.6, 0.9, 0.8]];
        let of = |kind, heads| Grid {
            kind,
            layers: 2,
            heads,
            ..grid(0..1, 0.9, 0.1, &rows)
        };
        for (grid, role) in [
            (of(Kind::Head, 2), v1::TokenRole::Last),
            (of(Kind::HeadAll, 4), v1::TokenRole::Every),
        ] {
            let made = Averages::over([&grid]).unwrap().unwrap();
            let sent = averages_to_proto(&made, None);
            let back = averages(&sent).unwrap();
            assert_eq!(back.locate(), made.locate());
            assert_eq!((back.heads, back.roles()), (made.heads, made.roles()));
            let peak = peak(&grid).unwrap();
            let head = back.locate().unwrap().head.map(|head| head as u32);
            assert_eq!((peak.head, peak.role()), (head, role));
            let fewer = v1::KindAverages {
                heads: sent.heads - 1,
                ..sent
            };
            assert!(averages(&fewer).is_none());
        }
    }

    #[test]
    fn a_peak_in_noising_says_how_much_it_takes_away() {
        let grid = Grid {
            direction: Direction::Noising,
            ..grid(0..1, 0.9, 0.1, &[&[0.8, 0.9], &[0.3, 0.5]])
        };
        let peak = peak(&grid).unwrap();
        assert_eq!((peak.token, peak.layer), (1, 0));
        assert!((peak.effect - 0.6).abs() < 1e-12, "{}", peak.effect);
    }

    #[test]
    fn a_peak_says_what_its_token_is_to_the_subject() {
        let of = |subject, at: usize| {
            let rows: Vec<Vec<f64>> = (0..5).map(|n| vec![0.1, f64::from(n == at)]).collect();
            let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
            let peak = peak(&grid(subject, 0.9, 0.1, &rows)).unwrap();
            assert_eq!((peak.token as usize, peak.layer), (at, 1));
            assert!((peak.effect - 0.9).abs() < 1e-12);
            peak.role()
        };
        assert_eq!(of(1..2, 1), v1::TokenRole::LastSubject);
        assert_eq!(of(0..3, 0), v1::TokenRole::FirstSubject);
        assert_eq!(of(0..3, 1), v1::TokenRole::MiddleSubject);
        assert_eq!(of(2..5, 4), v1::TokenRole::LastSubject);
        assert_eq!(of(0..2, 4), v1::TokenRole::Last);
        assert_eq!(of(0..2, 2), v1::TokenRole::FirstSubsequent);
        assert_eq!(of(0..1, 2), v1::TokenRole::Further);
    }
}
