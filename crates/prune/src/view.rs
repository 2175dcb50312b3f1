//! A weight as the products of a layer: which output, input channel and place in the kernel each element belongs to.
use ops::WeightAxes;

/// The meaning of a weight's elements: each belongs to one output, one input channel and one place in the kernel. A result of the layer
/// is the sum over the input channels and places of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightView {
    /// The weight's shape.
    pub shape: Vec<usize>,
    /// Number of outputs: channels of a convolution, columns of a matrix product, gates of a recurrent layer.
    pub outputs: usize,
    /// Number of input channels that an output sums over.
    pub inputs: usize,
    /// Elements of a kernel; 1 for a layer without one.
    pub places: usize,
    /// Length of the kernel's last axis; 1 for a layer without one.
    pub width: usize,
    /// Number of groups of outputs that read different input channels.
    pub groups: usize,
    /// For each axis: what it counts, and the stride in that count.
    axes: Vec<(Counts, usize)>,
    parts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Output,
    Input,
    Place,
}

impl WeightView {
    /// For a weight whose axes are known.
    pub fn new(shape: &[usize], of: &WeightAxes) -> WeightView {
        let parts = if of.grouped_by_input { of.groups.max(1) } else { 1 };
        let mut totals = [1usize; 3];
        let mut axes = vec![(Counts::Output, 1); shape.len()];
        for axis in (0..shape.len()).rev() {
            let counts = match axis {
                _ if axis == of.input => Counts::Input,
                _ if of.kernel.contains(&axis) => Counts::Place,
                _ => Counts::Output,
            };
            let total = &mut totals[counts as usize];
            axes[axis] = (counts, *total);
            *total *= shape[axis];
        }
        let [outputs, inputs, places] = totals;
        let width = of.kernel.last().map_or(1, |axis| shape[*axis]);
        let (outputs, inputs, groups) = (outputs * parts, inputs / parts, of.groups.max(1));
        WeightView { shape: shape.to_vec(), outputs, inputs, places, width, groups, axes, parts }
    }

    /// Output, input channel (among those that the output sums over) and place of the element at a position in the stored order.
    pub fn at(&self, position: usize) -> (usize, usize, usize) {
        let (mut rest, mut counts) = (position, [0usize; 3]);
        for (axis, (of, stride)) in self.axes.iter().enumerate().rev() {
            counts[*of as usize] += rest % self.shape[axis] * stride;
            rest /= self.shape[axis];
        }
        let [output, input, place] = counts;
        let part = input / self.inputs.max(1);
        (part * (self.outputs / self.parts) + output, input % self.inputs.max(1), place)
    }

    /// Calls `f` with output, input channel and place of each element, in the stored order.
    pub fn map<T>(&self, f: impl Fn(usize, usize, usize) -> T) -> Vec<T> {
        let map = |position| {
            let (output, input, place) = self.at(position);
            f(output, input, place)
        };
        (0..self.shape.iter().product()).map(map).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_placed_by_the_meaning_of_their_axes() {
        let axes = |input, kernel: &[usize], groups| WeightAxes {
            input,
            kernel: kernel.to_vec(),
            groups,
            grouped_by_input: groups > 1,
            data: None,
        };
        let conv = WeightView::new(&[4, 3, 2, 5], &axes(1, &[2, 3], 1));
        assert_eq!((conv.outputs, conv.inputs, conv.places, conv.width), (4, 3, 10, 5));
        assert_eq!(conv.at(((2 * 3 + 1) * 2 + 1) * 5 + 3), (2, 1, 8));
        let gemm = WeightView::new(&[6, 4], &axes(0, &[], 1));
        assert_eq!((gemm.at(4 * 5 + 2), gemm.outputs, gemm.inputs), ((2, 5, 0), 4, 6));
        // Two groups of a transposed convolution: the input channel tells the group.
        let transposed = WeightView::new(&[6, 2, 3], &axes(0, &[2], 2));
        assert_eq!((transposed.outputs, transposed.inputs), (4, 3));
        assert_eq!(transposed.at((4 * 2 + 1) * 3 + 2), (3, 1, 2));
        let recurrent = WeightView::new(&[2, 8, 5], &axes(2, &[], 1));
        assert_eq!((recurrent.at((8 + 3) * 5 + 4), recurrent.outputs), ((11, 4, 0), 16));
    }
}
