"""`python -m functional_paged._cli`."""

from . import main

main()
