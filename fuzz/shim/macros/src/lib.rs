//! The attributes of the eBPF programs' maps.

use proc_macro::{TokenStream, TokenTree};

/// Leaves a map as it is, but lets the rest of its crate see it, as the daemon does by its name.
#[proc_macro_attribute]
pub fn map(_arguments: TokenStream, item: TokenStream) -> TokenStream {
    let visible: TokenStream = "pub(crate)".parse().expect("it is a visibility");
    let mut tokens = item.into_iter().peekable();
    let mut shown = TokenStream::new();
    let is_static = |token: &TokenTree| token.to_string() == "static";
    while let Some(token) = tokens.next_if(|token| !is_static(token)) {
        shown.extend([token]);
    }
    shown.extend(visible);
    shown.extend(tokens);
    shown
}
