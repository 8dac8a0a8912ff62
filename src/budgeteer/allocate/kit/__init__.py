"""What several allocators share: bisection for a price, hulls of menus, counts, marginal gains."""
