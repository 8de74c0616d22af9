//! Client of brokers and consumers: routes, appends, readers, lists, specification trees.
pub mod specs;
