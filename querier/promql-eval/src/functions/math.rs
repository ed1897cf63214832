//! Functions of one number.

/// Which function.
#[derive(Clone, Copy, Debug)]
pub struct MathFunction {
    /// As in a query.
    pub name: &'static str,
    /// What it computes.
    pub f: fn(f64) -> f64,
}

const FUNCTIONS: &[MathFunction] = &[
    MathFunction { name: "abs", f: f64::abs },
    MathFunction { name: "acos", f: f64::acos },
    MathFunction { name: "acosh", f: f64::acosh },
    MathFunction { name: "asin", f: f64::asin },
    MathFunction { name: "asinh", f: f64::asinh },
    MathFunction { name: "atan", f: f64::atan },
    MathFunction { name: "atanh", f: f64::atanh },
    MathFunction { name: "ceil", f: f64::ceil },
    MathFunction { name: "cos", f: f64::cos },
    MathFunction { name: "cosh", f: f64::cosh },
    MathFunction { name: "deg", f: |v| v * 180.0 / std::f64::consts::PI },
    MathFunction { name: "exp", f: f64::exp },
    MathFunction { name: "floor", f: f64::floor },
    MathFunction { name: "ln", f: f64::ln },
    MathFunction { name: "log10", f: f64::log10 },
    MathFunction { name: "log2", f: f64::log2 },
    MathFunction { name: "rad", f: |v| v * std::f64::consts::PI / 180.0 },
    MathFunction { name: "sgn", f: sign },
    MathFunction { name: "sin", f: f64::sin },
    MathFunction { name: "sinh", f: f64::sinh },
    MathFunction { name: "sqrt", f: f64::sqrt },
    MathFunction { name: "tan", f: f64::tan },
    MathFunction { name: "tanh", f: f64::tanh },
];

impl MathFunction {
    /// The function of a name.
    pub fn of(name: &str) -> Option<Self> {
        FUNCTIONS.iter().find(|f| f.name == name).copied()
    }
}

/// −1 or 1; zeros and NaN stay.
fn sign(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// Go's `math.Max`: NaN where either is NaN, except that infinity wins; `f64::max` would drop NaN.
pub fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`.
pub fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}
