# README's two commands, as an ordinary user. Of data/ and reports/ only what git holds gets in (see .dockerignore).
#   docker build -t drgstudy .
#   docker run --name report drgstudy && docker cp report:/study/reports/demo reports/
#   docker run drgstudy make test
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends chromium git make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home student && install --directory --owner=student /study
USER student
WORKDIR /study
COPY --chown=student . .
RUN make env
CMD ["make", "report"]
