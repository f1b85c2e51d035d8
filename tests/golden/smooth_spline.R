# Golden numbers for tests/test_spline.py. Rerun (Debian: apt-get install r-base-core):
#   Rscript tests/golden/smooth_spline.R > tests/golden/smooth_spline.json
# smooth.spline as it comes; every k-th distinct x is kept, and the leverage of one observation.
set.seed(2023)
clip <- function(y) pmin(pmax(y, 0), 1)

rank <- 1:723
few <- c(1, 2, 4, 5, 7, 9, 12, 14, 17, 20, 24, 27, 31, 36, 41, 47, 54, 60, 68, 77)
many <- sample(1:60, 600, TRUE, prob = (1:60)^-0.7)
skewed <- signif(exp(rnorm(400, 4, 1.5)), 4)
crowded <- round(exp(rnorm(1000, 3, 1.2)))
near <- c(seq(0, 10, 0.1), seq(0, 10, 0.25) + 1e-7)
wide <- signif(rexp(1800), 5)
cases <- list(
  even_ranks = list(x = rank, y = clip(0.05 + 0.8 / (1 + exp((rank - 300) / 120)) + rnorm(723, 0, 0.22))),
  few_points = list(x = few, y = clip(0.5 + 0.4 * cos(few / 20) + rnorm(20, 0, 0.1))),
  replicated_integers = list(x = many, y = sin(many / 9) + rnorm(600, 0, 0.5)),
  log_normal = list(x = skewed, y = clip(0.1 * log(skewed) + rnorm(400, 0, 0.15))),
  log_normal_integers = list(x = crowded, y = log1p(crowded) + rnorm(1000, 0, 0.4)),
  nearly_equal = list(x = near, y = cos(near) + rnorm(length(near), 0, 0.3)),
  smoothest = list(x = 1:61, y = (1:61) / 30 + rep(c(-0.1, 0.1), length.out = 61)),  # the search ends at its bound
  many_knots = list(x = wide, y = sin(3 * wide) + rnorm(1800, 0, 0.7))
)

numbers <- function(v, digits) paste0("[", paste(formatC(v, digits = digits, format = "g"), collapse = ","), "]")
out <- vapply(names(cases), function(name) {
  x <- cases[[name]]$x
  y <- round(cases[[name]]$y, 3)
  s <- smooth.spline(x, y, cv = FALSE)
  at <- unique(round(seq(1, length(s$x), length.out = min(length(s$x), 80))))
  sprintf('"%s":{"x":%s,"y":%s,\n"df":%.10g,"lambda":%.10g,"n_knots":%d,"at":%s,"x_at":%s,"fit":%s,"leverage":%s}',
          name, numbers(x, 9), numbers(y, 6), s$df, s$lambda, s$fit$nk - 2L, numbers(at - 1, 6), numbers(s$x[at], 9),
          numbers(s$y[at], 9), numbers(s$lev[at] / s$w[at], 9))
}, "")
cat("{", paste(out, collapse = ",\n"), "}\n", sep = "")
