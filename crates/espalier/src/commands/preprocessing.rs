//! Preprocessing of images: the model's metadata, with changes given by the user.
use crate::{Error, Result};
use data::{Layout, Preprocess, Size};
use graph::Model;
use serde::Serialize;

/// Changes to the preprocessing; each given setting replaces the model's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreprocessChanges {
    /// As [`Preprocess::channels`].
    pub channels: Option<usize>,
    /// As [`Preprocess::size`].
    pub size: Option<Size>,
    /// As [`Preprocess::crop`].
    pub crop: Option<[usize; 2]>,
    /// As [`Preprocess::layout`].
    pub layout: Option<Layout>,
    /// As [`Preprocess::scale`].
    pub scale: Option<f64>,
    /// As [`Preprocess::mean`].
    pub mean: Option<Vec<f64>>,
    /// As [`Preprocess::std`].
    pub std: Option<Vec<f64>>,
    /// As [`Preprocess::arrays`].
    pub arrays: bool,
}

impl PreprocessChanges {
    /// True if no setting is given.
    pub fn is_empty(&self) -> bool {
        *self == PreprocessChanges::default()
    }

    /// The settings with these changes.
    pub fn over(&self, base: Preprocess) -> Preprocess {
        Preprocess {
            channels: self.channels.or(base.channels),
            size: self.size.or(base.size),
            crop: self.crop.or(base.crop),
            layout: self.layout.unwrap_or(base.layout),
            scale: self.scale.unwrap_or(base.scale),
            mean: self.mean.clone().unwrap_or(base.mean),
            std: self.std.clone().unwrap_or(base.std),
            arrays: self.arrays || base.arrays,
            ..base
        }
    }
}

/// Where the preprocessing came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preprocessing {
    /// Given by the user, the rest by default.
    Flags,
    /// The model's metadata, with changes given by the user.
    Changed,
    /// The model's metadata alone.
    Metadata,
    /// Pixels divided by 255, because nothing else is known.
    Default,
    /// None: the data are arrays, taken as they are.
    Arrays,
}

impl std::fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Preprocessing::Flags => "as given",
            Preprocessing::Changed => "from the model's metadata, changed as given",
            Preprocessing::Metadata => "from the model's metadata",
            Preprocessing::Arrays => "none, the data are arrays and taken as they are",
            Preprocessing::Default => "pixels / 255, because the model carries none (--scale, --mean, --std)",
        })
    }
}

/// The preprocessing in a model's metadata.
pub(crate) fn carried(model: &Model) -> Result<Option<Preprocess>> {
    let read = |json| serde_json::from_str(json).map_err(|e| Error::Input(format!("the model's metadata '{}': {e}", data::METADATA_KEY)));
    model.metadata_get(data::METADATA_KEY).map(read).transpose()
}

/// The preprocessing of the model's images, and its origin.
pub(super) fn preprocessing(model: &Model, changes: &PreprocessChanges) -> Result<(Preprocess, Preprocessing)> {
    let carried = carried(model)?;
    let from = match (&carried, changes.is_empty()) {
        (Some(_), true) => Preprocessing::Metadata,
        (Some(_), false) => Preprocessing::Changed,
        (None, false) => Preprocessing::Flags,
        (None, true) => Preprocessing::Default,
    };
    Ok((changes.over(carried.unwrap_or_default()), from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_that_is_given_leaves_the_others_of_the_model() {
        let mut model = Model::new(17);
        let own = Preprocess {
            mean: vec![0.5],
            std: vec![0.25],
            size: Some(Size::ShorterSide(40)),
            audio_rate: Some(8000),
            ..Preprocess::default()
        };
        model.metadata_set(data::METADATA_KEY, serde_json::to_string(&own).unwrap());
        let changes = PreprocessChanges { crop: Some([32, 32]), std: Some(vec![1.0]), ..PreprocessChanges::default() };
        let (found, from) = preprocessing(&model, &changes).unwrap();
        assert_eq!(found, Preprocess { crop: Some([32, 32]), std: vec![1.0], ..own.clone() });
        assert_eq!(from, Preprocessing::Changed);
        assert_eq!(preprocessing(&model, &PreprocessChanges::default()).unwrap(), (own, Preprocessing::Metadata));
        assert_eq!(preprocessing(&Model::new(17), &changes).unwrap().1, Preprocessing::Flags);
    }
}
