//! Removal of whole channels from any graph.
//!
//! Every operator says which indices of its inputs' and outputs' axes are removed together ([`ops::Operator::couples`]). Followed through
//! the graph, that joins all places of one *channel*: the filter that computes it, the normalization's scale and shift, the planes of
//! the filters that read it. Channels on the same axes form a [`Group`]. A channel is scored as a whole ([`choose`]) and removed as a
//! whole ([`cut`]); the smaller graph computes the same as the graph with all the channel's parameters at zero ([`zeroed`]).
mod branches;
mod choose;
mod cut;
mod dead;
mod describe;
mod fold;
mod groups;
mod growing;
mod heads;
mod settings;
mod still;
mod ties;

pub use branches::drop_branches;
pub use choose::{Chosen, Ranking, choose};
pub use cut::{cut, zeroed};
pub use dead::dead;
pub use describe::{GroupText, describe};
pub use fold::fold_constants;
pub use groups::{Channel, ChannelPlace, Group, Groups, Held, groups};
pub use growing::{GrowingPenalty, GrowingSettings};
pub(crate) use heads::heads;
pub use settings::{ChannelScope, ChannelSettings, Remove};

#[cfg(test)]
mod tests;
