//! Says at compile time what a type does not do: a secret is neither copied nor shown.

/// Does not compile when the type has one of the traits: then two implementations give the function, and none is meant.
macro_rules! lacks {
    ($type:ty: $($trait:path),+ $(,)?) => {
        $(const _: fn() = || {
            trait Given<Where> {
                fn here() {}
            }
            struct Has;
            impl<T: ?Sized> Given<()> for T {}
            impl<T: ?Sized + $trait> Given<Has> for T {}
            <$type as Given<_>>::here();
        };)+
    };
}
