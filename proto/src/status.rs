//! The one table from an error's class to HTTP, gRPC and the Prometheus API's `errorType`.

/// What the caller must do about an error; every public error has a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request is wrong: do not repeat it.
    BadRequest,
    /// No or wrong credentials or tenant.
    Unauthenticated,
    /// The credentials do not allow it.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// None of the accepted answer formats can be given.
    NotAcceptable,
    /// Content type or encoding is not spoken here.
    UnsupportedMediaType,
    /// The body is larger than allowed.
    TooLarge,
    /// The request is well-formed and cannot be executed.
    Unprocessable,
    /// A limit is exceeded: wait and repeat.
    TooManyRequests,
    /// The client went away.
    Canceled,
    /// The time allowed has passed.
    Timeout,
    /// Our fault.
    Internal,
    /// Not able now: repeat later.
    Unavailable,
}

impl ErrorClass {
    /// HTTP status, gRPC code number, Prometheus `errorType`.
    const fn row(self) -> (u16, i32, &'static str) {
        match self {
            Self::BadRequest => (400, 3, "bad_data"),
            Self::Unauthenticated => (401, 16, "bad_data"),
            Self::Forbidden => (403, 7, "bad_data"),
            Self::NotFound => (404, 5, "not_found"),
            Self::NotAcceptable => (406, 3, "not_acceptable"),
            Self::UnsupportedMediaType => (415, 3, "bad_data"),
            Self::TooLarge => (413, 8, "bad_data"),
            Self::Unprocessable => (422, 9, "execution"),
            Self::TooManyRequests => (429, 8, "too_many_requests"),
            Self::Canceled => (499, 1, "canceled"),
            Self::Timeout => (503, 4, "timeout"),
            Self::Internal => (500, 13, "internal"),
            Self::Unavailable => (503, 14, "unavailable"),
        }
    }

    /// The HTTP status code.
    pub const fn http(self) -> u16 {
        self.row().0
    }

    /// The gRPC status code.
    pub const fn grpc(self) -> i32 {
        self.row().1
    }

    /// The `errorType` of Prometheus' HTTP API.
    pub const fn prometheus(self) -> &'static str {
        self.row().2
    }
}
