//! The table of functions: names, argument types, how many arguments may be left out or added, and results.

use crate::ast::ValueType::{self, Matrix, Scalar, String, Vector};

/// One function of the language.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// As written in queries; names tell case apart.
    pub name: &'static str,
    /// The types of the arguments. Arguments past the end have the last type.
    pub arg_types: &'static [ValueType],
    /// 0: all of `arg_types` must be given. n > 0: the last argument type may be left out or given up to n times. −1:
    /// the last argument type may be left out or given any number of times.
    pub variadic: i32,
    /// What a call evaluates to.
    pub return_type: ValueType,
    /// It needs experimental functions to be enabled.
    pub experimental: bool,
}

const fn stable(name: &'static str, arg_types: &'static [ValueType], return_type: ValueType) -> Function {
    Function { name, arg_types, variadic: 0, return_type, experimental: false }
}

const fn vector_map(name: &'static str) -> Function {
    stable(name, &[Vector], Vector)
}

const fn over_range(name: &'static str) -> Function {
    stable(name, &[Matrix], Vector)
}

const fn date_part(name: &'static str) -> Function {
    stable(name, &[Vector], Vector).variadic(1)
}

impl Function {
    const fn variadic(mut self, variadic: i32) -> Self {
        self.variadic = variadic;
        self
    }

    const fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }
}

/// Every function, in order of name.
pub static FUNCTIONS: &[Function] = &[
    vector_map("abs"),
    vector_map("absent"),
    over_range("absent_over_time"),
    vector_map("acos"),
    vector_map("acosh"),
    vector_map("asin"),
    vector_map("asinh"),
    vector_map("atan"),
    vector_map("atanh"),
    over_range("avg_over_time"),
    vector_map("ceil"),
    over_range("changes"),
    stable("clamp", &[Vector, Scalar, Scalar], Vector),
    stable("clamp_max", &[Vector, Scalar], Vector),
    stable("clamp_min", &[Vector, Scalar], Vector),
    vector_map("cos"),
    vector_map("cosh"),
    over_range("count_over_time"),
    date_part("day_of_month"),
    date_part("day_of_week"),
    date_part("day_of_year"),
    date_part("days_in_month"),
    vector_map("deg"),
    over_range("delta"),
    over_range("deriv"),
    stable("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector).experimental(),
    stable("end", &[], Scalar).experimental(),
    vector_map("exp"),
    over_range("first_over_time"),
    vector_map("floor"),
    vector_map("histogram_avg"),
    vector_map("histogram_count"),
    stable("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    stable("histogram_quantile", &[Scalar, Vector], Vector),
    stable("histogram_quantiles", &[Vector, String, Scalar, Scalar], Vector).variadic(9).experimental(),
    vector_map("histogram_stddev"),
    vector_map("histogram_stdvar"),
    vector_map("histogram_sum"),
    date_part("hour"),
    over_range("idelta"),
    over_range("increase"),
    stable("info", &[Vector, Vector], Vector).variadic(1).experimental(),
    over_range("irate"),
    stable("label_join", &[Vector, String, String, String], Vector).variadic(-1),
    stable("label_replace", &[Vector, String, String, String, String], Vector),
    over_range("last_over_time"),
    vector_map("ln"),
    vector_map("log10"),
    vector_map("log2"),
    over_range("mad_over_time").experimental(),
    stable("max_of", &[Scalar, Scalar], Scalar).experimental(),
    over_range("max_over_time"),
    stable("min_of", &[Scalar, Scalar], Scalar).experimental(),
    over_range("min_over_time"),
    date_part("minute"),
    date_part("month"),
    stable("pi", &[], Scalar),
    stable("predict_linear", &[Matrix, Scalar], Vector),
    over_range("present_over_time"),
    stable("quantile_over_time", &[Scalar, Matrix], Vector),
    vector_map("rad"),
    stable("range", &[], Scalar).experimental(),
    over_range("rate"),
    over_range("resets"),
    stable("round", &[Vector, Scalar], Vector).variadic(1),
    stable("scalar", &[Vector], Scalar),
    vector_map("sgn"),
    vector_map("sin"),
    vector_map("sinh"),
    vector_map("sort"),
    stable("sort_by_label", &[Vector, String], Vector).variadic(-1).experimental(),
    stable("sort_by_label_desc", &[Vector, String], Vector).variadic(-1).experimental(),
    vector_map("sort_desc"),
    vector_map("sqrt"),
    stable("start", &[], Scalar).experimental(),
    vector_map("start_timestamp").experimental(),
    over_range("stddev_over_time"),
    over_range("stdvar_over_time"),
    stable("step", &[], Scalar).experimental(),
    over_range("sum_over_time"),
    vector_map("tan"),
    vector_map("tanh"),
    stable("time", &[], Scalar),
    vector_map("timestamp"),
    over_range("ts_of_first_over_time").experimental(),
    over_range("ts_of_last_over_time").experimental(),
    over_range("ts_of_max_over_time").experimental(),
    over_range("ts_of_min_over_time").experimental(),
    stable("vector", &[Scalar], Vector),
    date_part("year"),
];

/// The function of a name.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|f| f.name.cmp(name)).ok().and_then(|i| FUNCTIONS.get(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_function_is_found() {
        for f in FUNCTIONS {
            assert_eq!(function(f.name), Some(f));
        }
        assert!(FUNCTIONS.windows(2).all(|w| w[0].name < w[1].name));
        assert_eq!(function("Rate"), None);
    }
}
