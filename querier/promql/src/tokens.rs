//! Token listings, for highlighting and for tests of the lexer.

use crate::{ast::PosRange, lexer::Lexer, token::TokenKind as T};

/// One token of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LexedToken {
    /// The kind, spelled as in Prometheus' grammar: `LEFT_PAREN`, `IDENTIFIER`, `ERROR`.
    pub kind: &'static str,
    /// Where it stands.
    pub pos: PosRange,
    /// Its text, or an error's message.
    pub text: String,
}

/// The tokens of a query (or, with `series`, of a test series with its values), comments and errors included, the end
/// excluded.
pub fn tokens(input: &[u8], series: bool) -> Vec<LexedToken> {
    let mut lexer = if series { Lexer::new_series(input) } else { Lexer::new(input) };
    let mut out = Vec::new();
    loop {
        let token = lexer.next_token();
        let text = match token.kind {
            T::Eof => return out,
            T::Error => lexer.error().to_owned(),
            _ => String::from_utf8_lossy(lexer.text(token.pos)).into_owned(),
        };
        out.push(LexedToken { kind: token.kind.name(), pos: token.pos, text });
    }
}
