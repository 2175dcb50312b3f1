//! The encodings of a model with their settings read, so that a run does not read them for each value.
use encodings::{Codec, Parameters};
use graph::{Annotation, Model, ValueId};
use std::collections::HashMap;
use std::sync::Arc;
use tensor::{Activation, Tensor};

/// Codecs by value. Encodings that cannot be read are left out, and reported where they are used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codecs(HashMap<ValueId, Arc<dyn Codec>>);

impl Codecs {
    /// The codecs of a model's annotations.
    pub(crate) fn of(model: &Model) -> Self {
        let encoded = model.annotations.iter().filter_map(|(id, a)| Some((id, a.encoding.as_ref()?)));
        Codecs(encoded.filter_map(|(id, encoding)| Some((id, encodings::open(encoding).ok()?))).collect())
    }

    /// A value as its annotation stores it, with `parameters` in place of the encoding's own.
    ///
    /// # Errors
    /// As [`encodings::simulate`].
    pub(crate) fn simulate(
        &self,
        id: ValueId,
        value: &Tensor,
        activation: Activation,
        annotation: &Annotation,
        parameters: Option<&Parameters>,
    ) -> encodings::Result<Tensor> {
        let activated = |x: &Tensor| if activation == Activation::None { Ok(x.clone()) } else { activation.apply(x) };
        let Some(encoding) = &annotation.encoding else { return encodings::live(&activated(value)?, annotation.mask.as_ref()) };
        let own;
        let codec = match self.0.get(&id) {
            Some(codec) => codec,
            None => {
                own = encodings::open(encoding)?;
                &own
            }
        };
        let parameters = parameters.unwrap_or(&encoding.parameters);
        match &annotation.mask {
            None if activation != Activation::None => codec.simulate_activated(value, activation, parameters),
            mask => encodings::simulate_as(&activated(value)?, mask.as_ref(), codec.as_ref(), parameters),
        }
    }
}
