"""Laws that every method obeys, to be imported by the tests of other packages."""
