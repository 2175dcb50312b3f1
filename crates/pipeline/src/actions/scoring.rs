//! How many samples scoring runs at once.
use graph::{Dim, Model, ValueType};
use train::Named;

/// Most samples in a batch.
const SAMPLES: usize = 250;

/// Most bytes of a batch's largest value. A runtime holds several of that size at once.
const LARGEST: usize = 128 << 20;

/// As many samples as keep the largest value of a batch small: [`SAMPLES`], or fewer where a network of large images computes more than
/// [`LARGEST`] bytes from them, or takes so many. `run` holds the inputs of one run, of `samples` samples, of which a batch takes whole
/// ones. Values whose shape does not follow from the inputs' count as nothing.
pub(super) fn scoring_batch(model: &Model, run: &Named, samples: usize) -> usize {
    let known = |name: &str| run.get(name).map(|t| t.shape().iter().map(|d| Dim::Known(*d)).collect());
    let bare = ops::bare(model, |name, declared| known(name).or(declared.map(<[Dim]>::to_vec)));
    let types = ops::infer_types(&bare).unwrap_or_default();
    let bytes = |ty: &ValueType| match ty {
        ValueType::Tensor { dtype, shape: Some(shape) } => {
            let elements = shape.iter().map(Dim::known).product::<Option<usize>>()?;
            Some((elements * dtype.bits()).div_ceil(8))
        }
        _ => None,
    };
    let computed = types.iter().filter(|(v, _)| model.values.tensor(**v).is_none());
    let fed = run.values().map(|t| (t.len() * t.dtype().bits()).div_ceil(8));
    let (largest, samples) = (computed.filter_map(|(_, ty)| bytes(ty)).chain(fed).max().unwrap_or(0), samples.max(1));
    let most = (LARGEST / (largest / samples).max(1)).clamp(1, SAMPLES);
    (most / samples * samples).max(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::{DType, Tensor};

    #[test]
    fn networks_of_large_images_are_scored_in_small_batches() {
        let entry = zoo::find("resnet8").unwrap();
        let model = entry.build(&entry.default_options()).unwrap();
        let batch = |side: usize, run: usize, samples: usize| {
            let input = model.values[model.free_inputs()[0]].name.clone();
            scoring_batch(&model, &[(input, Tensor::zeros(DType::F32, &[run, 3, side, side]).unwrap())].into(), samples)
        };
        assert_eq!(batch(32, 1, 1), 250);
        // 16 channels of 512 x 512 numbers are 16 MiB.
        assert_eq!(batch(512, 1, 1), 8);
        assert_eq!(batch(512, 4, 4), 8, "of a run of several samples each counts alone");
        assert_eq!((batch(512, 3, 3), batch(512, 16, 16)), (6, 16), "in whole runs");
        assert_eq!(batch(4096, 1, 1), 1);
        assert_eq!(scoring_batch(&model, &Named::new(), 1), 250, "nothing is known");
    }
}
