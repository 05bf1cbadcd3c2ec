"""Operations in the forms that XLA compiles to fast programs on each platform; the forms have the same numbers."""
