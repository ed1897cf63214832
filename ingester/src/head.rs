//! The head.
mod append;
mod arena;
mod bits;
mod carry;
mod chunk;
mod column;
mod exemplars;
mod group;
mod histograms;
mod matching;
mod postings;
mod recent;
mod series;
mod side;
mod starts;
mod tenant;
mod totals;
