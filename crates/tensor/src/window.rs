//! A window that slides over up to three spatial axes: the sizes from which convolutions and pools compute where memory is
//! read and written. They are checked here, in one place, so that kernels need not check them again.
use crate::shape::MAX_ELEMENTS;
use crate::{Result, TensorError};
use std::ops::Deref;

// Positions along an axis have 31 bits, products of two axes 62.
const _: () = assert!(usize::BITS >= 64, "sizes of windows are computed in 64 bits");

/// The largest size along an axis of a window: kernel, stride, dilation, and the input with its padding. All positions along an
/// axis, and differences between them, fit 32 bits with a sign.
pub const MAX_AXIS: usize = i32::MAX as usize;

/// Sizes along depth, height and width.
pub(crate) type Size3 = [usize; 3];

/// The sizes of a [`Window`]; missing axes have length one and come first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sizes {
    /// Input size.
    pub(crate) input: Size3,
    /// Output size.
    pub(crate) output: Size3,
    /// Kernel size.
    pub(crate) kernel: Size3,
    /// Strides.
    pub(crate) stride: Size3,
    /// Dilations.
    pub(crate) dilation: Size3,
    /// Padding before the first element.
    pub(crate) before: Size3,
    /// Padding behind the last element.
    pub(crate) after: Size3,
}

/// How a window moves, one entry a spatial axis.
#[derive(Clone, Copy)]
pub(crate) struct Moves<'a> {
    pub(crate) strides: &'a [usize],
    pub(crate) pads: &'a [(usize, usize)],
    pub(crate) dilations: &'a [usize],
    /// Round the output's size up instead of down.
    pub(crate) ceil_mode: bool,
}

/// Checked sizes of a window. Guarantees of every window:
///
/// - along each axis, kernel, stride and dilation are at least 1, and they and the padded input at most [`MAX_AXIS`];
/// - the window fits the padded input, and the start of the last one lies in it: `(output - 1) * stride` is less than its size;
/// - the padded input of all channels together has no more than [`MAX_ELEMENTS`] elements, so that any place in it, and any
///   distance between two, is computed without overflow.
///
/// Created only by [`Window::new`] and [`Window::transposed`], and never changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window(Sizes);

impl Deref for Window {
    type Target = Sizes;
    fn deref(&self) -> &Sizes {
        &self.0
    }
}

impl Window {
    /// For an input of these spatial sizes, of which an image has `channels`, and a kernel.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit, [`TensorError::Unsupported`] for more than three spatial axes.
    pub(crate) fn new(op: &'static str, channels: usize, input: &[usize], kernel: &[usize], moves: Moves) -> Result<Window> {
        let wrong = |what: String| Err(TensorError::shape(op, what));
        let axes = kernel.len();
        if axes > 3 {
            return Err(TensorError::unsupported(op, format!("{axes} spatial axes; up to 3 are")));
        }
        let lists = [input.len(), moves.strides.len(), moves.pads.len(), moves.dilations.len()];
        if axes == 0 || lists.iter().any(|l| *l != axes) {
            return wrong(format!("input, strides, pads and dilations have {lists:?} entries for a kernel of {axes} spatial axes"));
        }
        let lead = 3 - axes;
        let spread = |f: &dyn Fn(usize) -> usize, fill: usize| std::array::from_fn(|i| if i < lead { fill } else { f(i - lead) });
        let mut w = Sizes {
            input: spread(&|i| input[i], 1),
            output: [1; 3],
            kernel: spread(&|i| kernel[i], 1),
            stride: spread(&|i| moves.strides[i], 1),
            dilation: spread(&|i| moves.dilations[i], 1),
            before: spread(&|i| moves.pads[i].0, 0),
            after: spread(&|i| moves.pads[i].1, 0),
        };
        let mut elements = Some(channels.max(1));
        for i in 0..3 {
            if w.stride[i] == 0 || w.dilation[i] == 0 || w.kernel[i] == 0 {
                return wrong("strides, dilations and kernel sizes must be at least 1".into());
            }
            let padded = sum([w.input[i], w.before[i], w.after[i]]);
            let span = (w.kernel[i] - 1).checked_mul(w.dilation[i]).and_then(|s| s.checked_add(1));
            let (Some(span), Some(padded)) = (span, padded.filter(|p| *p <= MAX_AXIS && w.stride[i].max(w.dilation[i]) <= MAX_AXIS)) else {
                let axis = i - lead.min(i);
                return wrong(format!(
                    "along spatial axis {axis}, input {} with padding {:?}, kernel {}, stride {} and dilation {}: none may exceed {MAX_AXIS}",
                    w.input[i],
                    (w.before[i], w.after[i]),
                    w.kernel[i],
                    w.stride[i],
                    w.dilation[i]
                ));
            };
            let Some(room) = padded.checked_sub(span) else {
                return wrong(format!("kernel {kernel:?} does not fit padded input {input:?}"));
            };
            let last = if moves.ceil_mode { room.div_ceil(w.stride[i]) } else { room / w.stride[i] };
            // A window that would start after the input and its leading padding is left out.
            let starts = !moves.ceil_mode || last * w.stride[i] < w.input[i] + w.before[i];
            w.output[i] = last + usize::from(starts);
            elements = elements.and_then(|n| n.checked_mul(padded));
        }
        if elements.is_none_or(|n| n > MAX_ELEMENTS) {
            return wrong(format!("{channels} channels of {input:?} with padding {:?} have more than {MAX_ELEMENTS} elements", moves.pads));
        }
        Ok(Window(w))
    }

    /// The window that slides over the output of a transposed operation, whose input has these spatial sizes; `more` elements
    /// are added behind each output axis. The window's input is that output, of which an image has `channels`.
    ///
    /// # Errors
    /// As [`Window::new`]; also for an output that would have no element.
    pub(crate) fn transposed(
        op: &'static str,
        channels: usize,
        input: &[usize],
        kernel: &[usize],
        moves: Moves,
        more: &[usize],
    ) -> Result<Window> {
        let lists = [kernel.len(), moves.strides.len(), moves.pads.len(), moves.dilations.len(), more.len()];
        if lists.iter().any(|l| *l != input.len()) {
            return Err(TensorError::shape(op, format!("input {input:?} and attributes of {lists:?} entries do not fit")));
        }
        let size = |i: usize| {
            let steps = input[i].saturating_sub(1).checked_mul(moves.strides[i])?;
            let full = sum([steps, kernel[i].saturating_sub(1).checked_mul(moves.dilations[i])?, 1, more[i]])?;
            Some((full, moves.pads[i].0.checked_add(moves.pads[i].1)?))
        };
        let mut output = vec![];
        for (i, input) in input.iter().enumerate() {
            let Some((full, cut)) = size(i).filter(|(full, _)| *full <= MAX_AXIS) else {
                let (stride, kernel, dilation) = (moves.strides[i], kernel[i], moves.dilations[i]);
                return Err(TensorError::shape(
                    op,
                    format!(
                        "along spatial axis {i}, {input} elements {stride} apart under a kernel of {kernel} with dilation {dilation} reach \
                         further than {MAX_AXIS}"
                    ),
                ));
            };
            let left = full.checked_sub(cut).filter(|n| *n > 0);
            output.push(left.ok_or_else(|| TensorError::shape(op, format!("pads {cut} leave nothing of {full} elements")))?);
        }
        let Window(mut w) = Window::new(op, channels, &output, kernel, moves)?;
        // The added elements may have room for more steps than the input has.
        let lead = 3 - input.len();
        for (i, size) in input.iter().enumerate() {
            if *size > w.output[lead + i] {
                return Err(TensorError::shape(op, format!("{size} elements along spatial axis {i} where {} fit", w.output[lead + i])));
            }
            w.output[lead + i] = *size;
        }
        Ok(Window(w))
    }

    /// Elements of the padded input of one channel.
    pub(crate) fn padded(&self) -> usize {
        (0..3).map(|i| self.before[i] + self.input[i] + self.after[i]).product()
    }

    /// Elements of the input of one channel.
    pub(crate) fn pixels_in(&self) -> usize {
        self.input.iter().product()
    }

    /// Elements of the output of one channel.
    pub(crate) fn pixels_out(&self) -> usize {
        self.output.iter().product()
    }

    /// True if almost all is padding: kernels that lay out a padded copy of the input would mostly process zeros.
    pub(crate) fn is_sparse(&self) -> bool {
        self.padded() > SPARSE * (self.pixels_in() + self.pixels_out()) + SMALL
    }
}

/// Ratio of padded input to read or written elements from which on a window counts as sparse, and a number of elements that is
/// always small enough.
const SPARSE: usize = 16;
const SMALL: usize = 1 << 14;

fn sum<const N: usize>(of: [usize; N]) -> Option<usize> {
    of.into_iter().try_fold(0usize, usize::checked_add)
}

/// `base` plus the products of all pairs: the range of an access. Kernels compare it with the lengths of their slices.
///
/// # Panics
/// If it is no number of 64 bits, in release builds too.
pub(crate) fn reach(base: usize, products: &[[usize; 2]]) -> usize {
    let all = products.iter().try_fold(base, |at, [a, b]| a.checked_mul(*b).and_then(|p| at.checked_add(p)));
    all.unwrap_or_else(|| panic!("an access at {base} plus {products:?} lies outside of memory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sizes of every magnitude, and those whose products just pass 64 bits.
    fn extreme() -> impl Strategy<Value = usize> {
        prop_oneof![
            4 => 0usize..6,
            1 => (0u32..64).prop_map(|b| 1usize << b),
            1 => (0u32..64).prop_map(|b| (1usize << b).wrapping_sub(1)),
            1 => (1usize..8).prop_map(|d| usize::MAX / d),
            1 => (2usize..8).prop_map(|d| usize::MAX / d + 1),
            1 => Just(i64::MAX as usize),
            1 => any::<usize>(),
        ]
    }

    fn three() -> impl Strategy<Value = [usize; 3]> {
        proptest::array::uniform3(extreme())
    }

    /// The guarantees of the type, in 128 bits.
    fn sound(w: &Window, channels: usize) {
        let wide = |v: usize| v as u128;
        let mut elements = wide(channels.max(1));
        for i in 0..3 {
            let padded = wide(w.input[i]) + wide(w.before[i]) + wide(w.after[i]);
            let span = (wide(w.kernel[i]) - 1) * wide(w.dilation[i]) + 1;
            assert!(w.kernel[i] >= 1 && w.stride[i] >= 1 && w.dilation[i] >= 1);
            assert!(span <= padded && padded <= wide(MAX_AXIS) && wide(w.stride[i].max(w.dilation[i])) <= wide(MAX_AXIS));
            if w.output[i] > 0 {
                assert!((wide(w.output[i]) - 1) * wide(w.stride[i]) < padded, "{w:?}");
            }
            elements *= padded;
        }
        assert!(elements <= wide(MAX_ELEMENTS));
        assert_eq!(wide(w.padded()) * wide(channels.max(1)), elements);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 50 } else { 20_000 }))]
        /// For any sizes: either refused, or the guarantees of the type hold, without overflow.
        #[test]
        fn no_window_is_unsound(
            channels in extreme(), input in three(), kernel in three(), strides in three(), dilations in three(), before in three(),
            after in three(), more in three(), axes in 0usize..4, ceil_mode: bool,
        ) {
            let pads: Vec<(usize, usize)> = before.into_iter().zip(after).collect();
            let moves = Moves { strides: &strides[..axes], pads: &pads[..axes], dilations: &dilations[..axes], ceil_mode };
            if let Ok(w) = Window::new("test", channels, &input[..axes], &kernel[..axes], moves) {
                sound(&w, channels);
            }
            let moves = Moves { ceil_mode: false, ..moves };
            if let Ok(w) = Window::transposed("test", channels, &input[..axes], &kernel[..axes], moves, &more[..axes]) {
                sound(&w, channels);
                prop_assert_eq!(&w.output[3 - axes..], &input[..axes]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "lies outside of memory")]
    fn a_reach_that_wraps_is_not_taken_for_a_small_one() {
        reach(5, &[[usize::MAX / 2, 3], [4, 4]]);
    }
}
