//! Integer operators that stand for a float operator between DequantizeLinear and QuantizeLinear: which operator, and how its
//! inputs follow from the float operator's. One table serves both directions: writing such operators and reading them.
use crate::{Operator, all};

/// The meaning of an integer operator's input, in terms of the float operator that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The integers of input `i`.
    Integers(usize),
    /// The scale of input `i`.
    Scale(usize),
    /// The zero point of input `i`.
    ZeroPoint(usize),
    /// Integers, scale and zero point of each input, one input after the other.
    EachInput,
    /// The scale of the output.
    OutputScale,
    /// The zero point of the output.
    OutputZeroPoint,
    /// Input `i` as int32 on the grid of the accumulator: its scale is the product of those of inputs 0 and 1. May be absent.
    Bias(usize),
    /// Input `i` unchanged: not a number (a condition).
    Plain(usize),
}

/// An integer operator as the counterpart of a float operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerForm {
    /// The float operator, of ONNX's own domain.
    pub of: &'static str,
    /// Its inputs in order.
    pub slots: &'static [Slot],
    /// The input of the float operator whose scale may be one for each output channel.
    pub weight: Option<usize>,
    /// Attributes of the float operator that it has too, under the same name and with the same meaning. Other attributes must be
    /// neutral (1).
    pub attributes: &'static [&'static str],
    /// True if its attribute `opset` holds the operator set version of the float operator.
    pub opset: bool,
}

impl IntegerForm {
    /// One input, one output.
    pub(crate) const ONE: &'static [Slot] =
        &[Slot::Integers(0), Slot::Scale(0), Slot::ZeroPoint(0), Slot::OutputScale, Slot::OutputZeroPoint];

    /// Two inputs, one output.
    pub(crate) const PAIR: &'static [Slot] = &[
        Slot::Integers(0),
        Slot::Scale(0),
        Slot::ZeroPoint(0),
        Slot::Integers(1),
        Slot::Scale(1),
        Slot::ZeroPoint(1),
        Slot::OutputScale,
        Slot::OutputZeroPoint,
    ];

    /// The position of a slot among its inputs; `None` where it has none.
    pub fn position(&self, slot: Slot) -> Option<usize> {
        self.slots.iter().position(|s| *s == slot)
    }
}

/// The integer operators that stand for an operator of ONNX's own domain.
pub fn integer_forms_of(op_type: &str) -> impl Iterator<Item = (&'static dyn Operator, &'static IntegerForm)> {
    all().filter_map(|op| Some((op, op.integer_form()?))).filter(move |(_, form)| form.of == op_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_stands_for_a_known_operator_and_has_an_output_grid() {
        let mut seen = vec![];
        for (op, form) in all().filter_map(|op| Some((op, op.integer_form()?))) {
            let name = op.op_type();
            assert!(crate::find("", form.of).is_some(), "{name} stands for {}, which is not known", form.of);
            for slot in [Slot::OutputScale, Slot::OutputZeroPoint] {
                assert_eq!(form.slots.iter().filter(|s| **s == slot).count(), 1, "{name}: {slot:?}");
            }
            for i in form.slots.iter().filter_map(|s| if let Slot::Integers(i) = s { Some(*i) } else { None }) {
                assert!(form.position(Slot::Scale(i)).is_some() && form.position(Slot::ZeroPoint(i)).is_some(), "{name}: input {i}");
            }
            seen.push(name);
        }
        assert!(seen.contains(&"QLinearConv") && seen.contains(&"QGemm") && seen.contains(&"QLinearConcat"), "{seen:?}");
        assert_eq!(integer_forms_of("Conv").map(|(op, _)| op.op_type()).collect::<Vec<_>>(), ["QLinearConv"]);
    }
}
