//! Shared by the tests of encodings.
use crate::{Decode, Slot, WeightEncoding, simulate, store};
use graph::{Annotation, Encoding};
use tensor::{Tensor, random};

/// An annotation without a mask.
pub(crate) fn annotated(encoding: Encoding) -> Annotation {
    Annotation { mask: None, encoding: Some(encoding) }
}

/// Output channels along axis 0, without a mask.
pub(crate) fn slot<'s>() -> Slot<'s> {
    Slot { axis: Some(0), ..Slot::default() }
}

/// A weight of normal deviates with the deviation 0.1.
pub(crate) fn weight(seed: u64, shape: &[usize]) -> Tensor {
    random::normal(seed, shape, 0.0, 0.1).unwrap()
}

/// A random weight is stored, read back and lifted as it is simulated, in the encoding's bits.
pub(crate) fn stored_as_simulated(settings: &dyn WeightEncoding, seed: u64, shape: &[usize]) {
    let w = weight(seed, shape);
    let e = settings.fit(&w, slot()).unwrap();
    let simulated = simulate(&w, &annotated(e.clone())).unwrap();
    let stored = store(&w, None, &e).unwrap();
    assert_eq!(crate::read(&stored.data, &e).unwrap(), simulated);
    let lifted = stored.decode.encoding().unwrap();
    assert_eq!(crate::read(&stored.data, &lifted).unwrap(), simulated);
    assert_eq!(simulate(&simulated, &annotated(lifted)).unwrap(), simulated);
    assert_eq!(crate::open(&e).unwrap().decode(&e.parameters).unwrap(), stored.decode);
    assert!(matches!(stored.decode, Decode::Table { bits, .. } if bits == settings.bits()), "{:?}", stored.decode);
}
