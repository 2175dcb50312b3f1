//! Scopes: over which weights a sparsity is reached.
mod erk;
mod global;
mod layer;
mod rates;
mod sensitivity;
mod uniform_plus;

pub use erk::Erk;
pub use global::Global;
pub use layer::PerLayer;
pub use rates::{Rate, Rates};
pub use sensitivity::SensitivityShares;
pub use uniform_plus::UniformPlus;

use crate::{Curve, Place, WeightView};
use technique::{Choice, Entry, Family, Fault};
use train::Harm;

/// A weight, as far as a scope needs it.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLayer<'a> {
    /// The weight's name.
    pub name: &'a str,
    /// Elements that the sparsity is a share of.
    pub elements: usize,
    /// The weight's shape.
    pub shape: &'a [usize],
    /// The meaning of its axes, where it has one.
    pub view: Option<&'a WeightView>,
    /// Where it stands in the network.
    pub place: Place,
}

/// The shares of the weights that become zero.
#[derive(Clone, Debug, PartialEq)]
pub enum Allocation {
    /// All weights are ranked together: what is least important anywhere goes.
    Together,
    /// A share for each weight, in their order.
    Shares(Vec<f64>),
}

/// Says over which weights a sparsity is reached.
///
/// A scope is a type that holds its settings, in a file of its own, and a line in [`Scopes::members`]. Large weights alone, but for the
/// manual page:
/// ```
/// use espalier_prune::{Allocation, Scope, ScopeLayer};
/// use technique::Fault;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Large {}
/// impl technique::Settings for Large {}
/// impl Scope for Large {
///     fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
///         Ok(Allocation::Shares(layers.iter().map(|l| if l.elements > 1000 { sparsity } else { 0.0 }).collect()))
///     }
/// }
/// let member = technique::member!(
///     Large as dyn Scope,
///     technique::Manual { name: "large", summary: "", details: "", source: "", example: "" }
/// );
/// assert_eq!((member.build)(Default::default()).unwrap().allocate(&[], 0.5), Ok(Allocation::Shares(vec![])));
/// ```
pub trait Scope: Send + Sync {
    /// The share of each weight that is zero at a sparsity of all of them together. A gradual schedule asks again for each sparsity on the
    /// way; no share may fall as the sparsity rises.
    ///
    /// # Errors
    /// A [`Fault`] at the key that does not fit the network.
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault>;

    /// The sparsity that the scope stands for by itself, if it does: the recipe then need not give it.
    fn sparsity(&self) -> Option<f64> {
        None
    }

    /// What has to be measured of each layer before it can allocate; `None` for a scope that needs nothing, or has it.
    fn measure(&self) -> Option<Measure<'_>> {
        None
    }

    /// The scope with what was measured; `None` for one that needs nothing.
    ///
    /// # Errors
    /// A [`Fault`] for curves that cannot be.
    fn measured(&self, _curves: Vec<Curve>) -> Result<Option<Choice<Scopes>>, Fault> {
        Ok(None)
    }
}

/// What a scope needs to know of each layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure<'a> {
    /// The sparsities to measure each layer at, rising.
    pub sparsities: &'a [f64],
    /// The harm that the curves are of.
    pub by: Harm,
    /// Number of samples to measure on.
    pub samples: usize,
    /// A file with a table that was measured before.
    pub table: Option<&'a str>,
}

impl Measure<'_> {
    /// The sparsities if none are given.
    pub const SPARSITIES: [f64; 5] = [0.3, 0.5, 0.7, 0.8, 0.9];

    /// Checks sparsities.
    ///
    /// # Errors
    /// A [`Fault`] at `sparsities` unless they rise, above 0 and below 1.
    pub fn check(sparsities: &[f64]) -> Result<(), Fault> {
        if sparsities.is_empty() || sparsities.windows(2).any(|w| w[0].partial_cmp(&w[1]) != Some(std::cmp::Ordering::Less)) {
            return Err(Fault::new("sparsities", format!("sparsities = {sparsities:?}: rising shares are needed")));
        }
        match sparsities.iter().find(|s| !(**s > 0.0 && **s < 1.0)) {
            Some(s) => Err(Fault::new("sparsities", format!("sparsities has {s}, which is not between 0 and 1"))),
            None => Ok(()),
        }
    }
}

/// The family of scopes.
pub struct Scopes;

impl Family for Scopes {
    type Member = dyn Scope;
    const NAME: &'static str = "scope";
    const SUMMARY: &'static str = "Over which weights the sparsity is reached: all together, or each with a share of its own.";
    const DEFAULT: Option<&'static str> = Some("global");
    fn members() -> &'static [Entry<dyn Scope>] {
        static LIST: &[Entry<dyn Scope>] =
            &[global::ENTRY, layer::ENTRY, erk::ENTRY, uniform_plus::ENTRY, rates::ENTRY, sensitivity::ENTRY];
        LIST
    }
}

/// One share for the weights that are not yet decided on (`None`), so that all together have the sparsity; at least 0 and at most 1.
fn rest(layers: &[ScopeLayer], sparsity: f64, decided: &[Option<f64>]) -> f64 {
    let (mut open, mut zeros) = (0.0, 0.0);
    let mut total = 0.0;
    for (layer, share) in layers.iter().zip(decided) {
        let elements = layer.elements as f64;
        total += elements;
        match share {
            Some(share) => zeros += share * elements,
            None => open += elements,
        }
    }
    if open == 0.0 { 0.0 } else { ((sparsity * total - zeros) / open).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPES: [[usize; 4]; 5] = [[16, 3, 3, 3], [16, 16, 3, 3], [64, 32, 3, 3], [64, 64, 1, 1], [10, 64, 1, 1]];

    fn layers() -> Vec<ScopeLayer<'static>> {
        let place = |i| match i {
            0 => Place::First,
            4 => Place::Last,
            _ => Place::Inner,
        };
        let names = ["stem", "a.conv1", "a.conv2", "b.conv1", "fc"];
        let all = SHAPES.iter().zip(names).enumerate();
        all.map(|(i, (shape, name))| ScopeLayer { name, elements: shape.iter().product(), shape, view: None, place: place(i) }).collect()
    }

    fn shares(scope: &dyn Scope, sparsity: f64) -> Vec<f64> {
        match scope.allocate(&layers(), sparsity).unwrap() {
            Allocation::Shares(shares) => shares,
            Allocation::Together => panic!("together"),
        }
    }

    fn total(shares: &[f64]) -> f64 {
        let all = layers();
        let zeros: f64 = all.iter().zip(shares).map(|(l, s)| l.elements as f64 * s).sum();
        zeros / all.iter().map(|l| l.elements as f64).sum::<f64>()
    }

    #[test]
    fn erk_keeps_the_density_of_the_formula_and_small_layers_dense() {
        let found = shares(&Erk::default(), 0.5);
        assert!((total(&found) - 0.5).abs() < 1e-9);
        // The stem's density would be above 1.
        assert_eq!(found[0], 0.0);
        let raw = |s: [usize; 4]| s.iter().sum::<usize>() as f64 / s.iter().product::<usize>() as f64;
        let open: Vec<usize> = (0..5).filter(|i| found[*i] > 0.0).collect();
        let ratio = |i: usize| (1.0 - found[i]) / raw(SHAPES[i]);
        assert!(open.len() > 1 && open.iter().all(|i| (ratio(*i) / ratio(open[0]) - 1.0).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn uniform_plus_spares_the_first_convolution_and_bounds_the_last_layer() {
        let found = shares(&UniformPlus::default(), 0.9);
        assert_eq!((found[0], found[4]), (0.0, 0.8));
        assert!(found[1] == found[2] && found[2] == found[3] && found[1] > 0.9);
        assert!((total(&found) - 0.9).abs() < 1e-9);
        assert!(shares(&UniformPlus::default(), 0.3)[4] <= 0.8);
    }

    #[test]
    fn rates_go_by_the_first_pattern_that_fits() {
        let rate = |weights: &str, sparsity| Rate { weights: weights.into(), sparsity };
        let scope = Rates { rates: vec![rate("a.conv1", 0.1), rate("a.*", 0.9), rate("fc", 0.5)], others: 0.0 };
        assert_eq!(shares(&scope, 1.0), [0.0, 0.1, 0.9, 0.0, 0.5]);
        assert_eq!(scope.sparsity(), Some(1.0));
        // A schedule that is half way.
        assert_eq!(shares(&scope, 0.5), [0.0, 0.05, 0.45, 0.0, 0.25]);
        let none = Rates { rates: vec![rate("b.conv2", 0.5)], others: 0.0 }.allocate(&layers(), 0.5).unwrap_err();
        assert_eq!((none.path, none.what.as_str()), (vec!["rates".into()], "'b.conv2' matches no weight"));
    }

    proptest! {
        #[test]
        fn shares_never_fall_and_meet_the_sparsity(low in 0f64..0.99, more in 0f64..1.0) {
            let high = low + (0.99 - low) * more;
            let all: [Box<dyn Scope>; 3] = [Box::new(PerLayer::default()), Box::new(Erk::default()), Box::new(UniformPlus::default())];
            for scope in &all {
                let (a, b) = (shares(&**scope, low), shares(&**scope, high));
                prop_assert!(a.iter().zip(&b).all(|(a, b)| *a <= b + 1e-9), "{a:?} {b:?}");
                prop_assert!(b.iter().all(|s| (0.0..=1.0).contains(s)));
                prop_assert!((total(&a) - low).abs() < 0.02, "{a:?}");
            }
        }
    }
}
