//! One convolution in the form that the kernels use.
use crate::shape::MAX_ELEMENTS;
use crate::window::{Moves, Window};
use crate::{ConvOptions, Result, TensorError};
use std::ops::Deref;

/// The sizes of a [`Geometry`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parts {
    /// Images.
    pub(crate) n: usize,
    /// Input channels.
    pub(crate) c: usize,
    /// Output channels.
    pub(crate) o: usize,
    /// Groups.
    pub(crate) groups: usize,
    /// The window of the kernel: [`Parts`] has its sizes.
    window: Window,
}

impl Deref for Parts {
    type Target = Window;
    fn deref(&self) -> &Window {
        &self.window
    }
}

/// One convolution: a checked [`Window`], with images and channels. Besides the guarantees of the window, the output of an image,
/// the weights, and the columns of a group's kernels have no more than [`MAX_ELEMENTS`] elements.
///
/// Created only by [`Geometry::new`] and [`Geometry::transposed`], and never changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Geometry(Parts);

impl Deref for Geometry {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Input channels of `w` in `groups`, if weight and groups fit.
fn channels(w: &[usize], groups: usize) -> Option<usize> {
    let fits = groups > 0 && w.first()?.is_multiple_of(groups);
    w.get(1)?.checked_mul(groups).filter(|_| fits)
}

fn moves(options: &ConvOptions) -> Moves<'_> {
    Moves { strides: &options.strides, pads: &options.pads, dilations: &options.dilations, ceil_mode: false }
}

impl Geometry {
    /// From the shapes `[n, c, spatial..]` and `[o, c / groups, kernel..]`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] where they do not fit, [`TensorError::Unsupported`] for more than three spatial axes.
    pub(crate) fn new(x: &[usize], w: &[usize], options: &ConvOptions) -> Result<Self> {
        let wrong = |what: String| Err(TensorError::shape("conv", what));
        if x.len() < 3 || x.len() != w.len() {
            return wrong(format!("input {x:?} and weight {w:?} need the same rank of at least 3"));
        }
        let taken = channels(w, options.groups);
        if taken != Some(x[1]) {
            let taken = taken.map_or("none".into(), |n| n.to_string());
            return wrong(format!("input {x:?} has {} channels, weight {w:?} in {} groups takes {taken}", x[1], options.groups));
        }
        let window = Window::new("conv", x[1], &x[2..], &w[2..], moves(options))?;
        Geometry::of(x[0], x[1], w[0], options.groups, window)
    }

    /// Of the convolution whose gradient by its input is the transposed convolution of `x` (`[n, o, spatial..]`) with `w`
    /// (`[o, c / groups, kernel..]`), `more` elements added behind each output axis; and that output's shape.
    ///
    /// # Errors
    /// As [`Geometry::new`]; also for an output that would have no element.
    pub(crate) fn transposed(x: &[usize], w: &[usize], options: &ConvOptions, more: &[usize]) -> Result<(Self, Vec<usize>)> {
        let wrong = |what: String| Err(TensorError::shape("conv_transpose", what));
        if x.len() < 3 || x.len() != w.len() || x[1] != w[0] {
            return wrong(format!("input {x:?} and weight {w:?} need the same rank of at least 3, and as many channels"));
        }
        let Some(outputs) = channels(w, options.groups) else {
            return wrong(format!("weight {w:?} does not fall into {} groups", options.groups));
        };
        let window = Window::transposed("conv_transpose", outputs, &x[2..], &w[2..], moves(options), more)?;
        let shape = [&[x[0], outputs], &window.input[5 - x.len()..]].concat();
        Ok((Geometry::of(x[0], outputs, w[0], options.groups, window)?, shape))
    }

    fn of(n: usize, c: usize, o: usize, groups: usize, window: Window) -> Result<Self> {
        let g = Geometry(Parts { n, c, o, groups, window });
        // The kernel is no larger than the padded input, so these products of its sizes and a group's channels do not wrap.
        let fits = |many: usize, elements: usize| many.checked_mul(elements).is_some_and(|n| n <= MAX_ELEMENTS);
        if !fits(o, g.pixels_out()) || !fits(o, g.group_in() * g.taps()) {
            let what = format!("{o} output channels of {:?}, or their kernels of {} x {:?}", g.output, g.group_in(), g.kernel);
            return Err(TensorError::shape("conv", format!("{what}, have more than {MAX_ELEMENTS} elements")));
        }
        Ok(g)
    }

    /// Elements of one kernel of one input channel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
    /// Input channels of one group.
    pub(crate) fn group_in(&self) -> usize {
        self.c / self.groups
    }
    /// Output channels of one group.
    pub(crate) fn group_out(&self) -> usize {
        self.o / self.groups
    }
    /// True if the 2-D kernels apply.
    pub(crate) fn is_planar(&self) -> bool {
        self.input[0] == 1 && self.output[0] == 1 && self.kernel[0] == 1 && self.before[0] == 0
    }
    /// True if each input channel has filters of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups == self.c && self.groups > 1
    }
}
