//! Inputs and wanted outputs of a unit, sample by sample.
use super::units::Unit;
use crate::Result;
use crate::error::named;
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::{Tensor, random};
use train::Layerwise;
use train::{Executor, Mode, Named};

/// Most bytes for the samples of one unit. If all need more, the first ones that fit are taken.
const LIMIT: usize = 1 << 30;

/// The samples of one unit. Tensors are in the order of the unit's inputs and targets.
pub(super) struct Rows {
    /// Names of the unit's inputs.
    names: Vec<String>,
    pieces: Vec<Piece>,
    /// Samples along the first axis of each tensor of the one piece; `None` if runs cannot be cut into samples, and each piece is
    /// taken as a whole.
    samples: Option<usize>,
}

/// Samples in common tensors.
#[derive(Clone, Default)]
pub(super) struct Piece {
    /// Inputs in the simulation of the network before the unit.
    pub(super) quantized: Vec<Tensor>,
    /// Inputs in the float network.
    pub(super) float: Vec<Tensor>,
    /// Outputs in the float network.
    pub(super) targets: Vec<Tensor>,
}

impl Piece {
    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.quantized.iter().chain(&self.float).chain(&self.targets)
    }

    fn map(&self, mut f: impl FnMut(&Tensor) -> tensor::Result<Tensor>) -> tensor::Result<Piece> {
        let mut list = |tensors: &[Tensor]| tensors.iter().map(&mut f).collect::<tensor::Result<Vec<_>>>();
        Ok(Piece { quantized: list(&self.quantized)?, float: list(&self.float)?, targets: list(&self.targets)? })
    }
}

/// The float network and the simulation, both stopped before some unit.
pub(super) struct Sides<'a> {
    pub(super) float_model: &'a Model,
    pub(super) float: Layerwise,
    pub(super) quantized: Layerwise,
}

impl Sides<'_> {
    /// The samples of a unit of `model`. Units must be requested in the order of their first nodes.
    ///
    /// # Errors
    /// Errors of running the graph.
    pub(super) fn rows(&mut self, model: &Model, unit: &Unit) -> Result<Rows> {
        let Some(first) = unit.nodes.first().copied() else { return Ok(Rows { names: vec![], pieces: vec![], samples: None }) };
        let inputs = unit.inputs(model);
        let names: Vec<String> = inputs.iter().map(|v| model.values[*v].name.clone()).collect();
        let quantized = self.quantized.before(model, first)?;
        let float = self.float.before(self.float_model, first)?;
        let piece = unit.piece(self.float_model);
        let executor = Executor::new(&piece)?;
        let (mut pieces, mut bytes) = (vec![], 0);
        for (quantized, float) in quantized.iter().zip(&float) {
            let of = |state: &HashMap<ValueId, Tensor>| inputs.iter().map(|v| state.get(v).cloned()).collect::<Option<Vec<_>>>();
            let (Some(quantized), Some(float)) = (of(quantized), of(float)) else { continue };
            let feed: Named = names.iter().cloned().zip(float.iter().cloned()).collect();
            let mut ran = executor.run_with(&feed, &Default::default(), Mode::SIMULATED, None)?;
            let targets: Option<Vec<Tensor>> = unit.targets.iter().map(|v| ran.values.remove(v)).collect();
            let Some(targets) = targets else { continue };
            let piece = Piece { quantized, float, targets };
            bytes += piece.all().map(|t| t.len() * t.dtype().bits().div_ceil(8)).sum::<usize>();
            if bytes > LIMIT && !pieces.is_empty() {
                break;
            }
            pieces.push(piece);
        }
        Rows::new(names, pieces).map_err(|e| named(&unit.label(model))(e.into()))
    }
}

impl Rows {
    fn new(names: Vec<String>, pieces: Vec<Piece>) -> tensor::Result<Rows> {
        let length = |piece: &Piece| {
            let n = piece.all().next().and_then(|t| t.shape().first().copied())?;
            piece.all().all(|t| t.shape().first() == Some(&n)).then_some(n)
        };
        let rests = |piece: &Piece| piece.all().map(|t| t.shape().get(1..).unwrap_or_default().to_vec()).collect::<Vec<_>>();
        let lengths: Option<Vec<usize>> = pieces.iter().map(length).collect();
        let alike = pieces.windows(2).all(|w| rests(&w[0]) == rests(&w[1]));
        let (Some(lengths), Some(first), true) = (lengths, pieces.first(), alike) else {
            return Ok(Rows { names, pieces, samples: None });
        };
        let column = |of: fn(&Piece) -> &Vec<Tensor>| {
            let one = |i: usize| Tensor::concat(&pieces.iter().map(|p| of(p)[i].clone()).collect::<Vec<_>>(), 0);
            (0..of(first).len()).map(one).collect::<tensor::Result<Vec<_>>>()
        };
        let whole = Piece { quantized: column(|p| &p.quantized)?, float: column(|p| &p.float)?, targets: column(|p| &p.targets)? };
        Ok(Rows { names, pieces: vec![whole], samples: Some(lengths.iter().sum()) })
    }

    /// Number of samples; of runs, if these cannot be cut.
    pub(super) fn len(&self) -> usize {
        self.samples.unwrap_or(self.pieces.len())
    }

    /// The samples of a step, drawn without repetition until all have been used.
    ///
    /// # Errors
    /// If a tensor cannot be cut.
    pub(super) fn draw(&self, step: usize, batch: usize, seed: u64) -> tensor::Result<Piece> {
        let count = self.len().max(1);
        let batch = if self.samples.is_some() { batch.clamp(1, count) } else { 1 };
        let steps = (count / batch).max(1);
        let order = random::permutation(random::derive(seed, (step / steps) as u64), count);
        let from = step % steps * batch;
        let picked = &order[from.min(order.len())..(from + batch).min(order.len())];
        match (self.samples, picked.first()) {
            (Some(_), _) => {
                let index = Tensor::vector(picked.iter().map(|i| *i as i64).collect::<Vec<_>>());
                self.pieces[0].map(|t| t.gather(&index, 0))
            }
            (None, Some(one)) => Ok(self.pieces[*one].clone()),
            (None, None) => Ok(Piece::default()),
        }
    }

    /// All samples in order, `batch` at a time.
    pub(super) fn all(&self, batch: usize) -> impl Iterator<Item = tensor::Result<Piece>> + '_ {
        let count = self.len();
        let batch = if self.samples.is_some() { batch.max(1) } else { 1 };
        (0..count.div_ceil(batch)).map(move |i| match self.samples {
            Some(_) => self.pieces[0].map(|t| t.narrow(0, i * batch, batch.min(count - i * batch))),
            None => Ok(self.pieces[i].clone()),
        })
    }

    /// The inputs of a unit's graph: each element is the float network's with the probability `float`, else the simulation's.
    ///
    /// # Errors
    /// If the two differ in shape.
    pub(super) fn feed(&self, piece: &Piece, float: f64, seed: u64) -> tensor::Result<Named> {
        let one = |(i, (name, quantized)): (usize, (&String, &Tensor))| {
            let fed = match quantized.dtype().is_float() && float > 0.0 {
                true => piece.float[i].mixed(quantized, float, random::derive(seed, i as u64))?,
                false => quantized.clone(),
            };
            Ok((name.clone(), fed))
        };
        self.names.iter().zip(&piece.quantized).enumerate().map(one).collect()
    }
}
